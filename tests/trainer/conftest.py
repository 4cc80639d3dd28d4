"""One thread for torch: two wait for each other more than they help on pictures this small."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.pairs import write_pairs

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A set of 40 small pairs."""
    return str(write_pairs(tmp_path_factory.mktemp("pairs") / "set", 40))
