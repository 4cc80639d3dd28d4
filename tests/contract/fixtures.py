"""Fixtures that put the fake TensorRT in the real one's place; ``tests/conftest.py`` gives them to every test."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from .record import VERSIONS, load

if TYPE_CHECKING:
    from .machine import Machine

HERE = Path(__file__).parent


@pytest.fixture(params=VERSIONS)
def tensorrt_version(request: pytest.FixtureRequest) -> str:
    """Each recorded version in turn; ``@pytest.mark.parametrize("tensorrt_version", ["10.3.0"])`` takes one."""
    return request.param


@pytest.fixture
def machine() -> Machine:
    """The computer that the fake believes to run on: set it before, ask it afterwards."""
    from .machine import Machine

    return Machine()


@pytest.fixture
def tensorrt(tensorrt_version: str, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The fake of ``tensorrt_version`` as ``import tensorrt`` finds it, here and in processes started from here."""
    from .fake_tensorrt import make_fake

    fake = make_fake(load(tensorrt_version), machine)
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setenv("FAKE_TENSORRT", tensorrt_version)
    path = [str(HERE / "on_path"), str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    return fake
