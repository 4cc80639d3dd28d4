from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.page import Run


@pytest.fixture
def run() -> Iterator[Run]:
    """A run with a page on localhost."""
    opened = Run()
    try:
        yield opened
    finally:
        opened.page.close()
