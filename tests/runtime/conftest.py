"""A simulated GPU, a fake TensorRT's engine of the tiny network, and a session on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from edgesod.runtime.cuda import VARIABLE, memory
from edgesod.runtime.tensorrt_session import TensorRtSession
from tests.helpers.tensorrt import write_plan


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[memory.Driver]:
    monkeypatch.setenv(VARIABLE, "memory")
    with memory.simulated(gpus=(memory.GPU,)) as driver:
        yield driver


@pytest.fixture
def plan(tmp_path: Path, tensorrt: ModuleType, driver: memory.Driver) -> Path:
    return write_plan(tmp_path / "tiny.plan", tensorrt)


@pytest.fixture
def session(plan: Path) -> Iterator[TensorRtSession]:
    opened = TensorRtSession(plan)
    with opened:
        yield opened
