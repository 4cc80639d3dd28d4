"""Builds for a DLA: what it takes is said, what it needs is given, and one that is not there is refused."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgesod.calibration.table import read_table
from edgesod.calibration.tensorrt_cache import read_cache
from edgesod.errors import BackendError
from edgesod.recipe import Precision
from tests.contract.machine import Machine
from tests.contract.record import load

from .conftest import Bench

parametrize = pytest.mark.parametrize


@parametrize("tensorrt_version", ["8.6.1", "10.3.0", "11.4.0.106"])
@parametrize("precision", ["fp16", "int8"])
def test_a_dla_takes_what_it_can_and_says_so(
    bench: Bench, machine: Machine, photographs: Path, precision: Precision, tensorrt_version: str
) -> None:
    machine.dla_cores = 2
    record = bench.built(precision, photographs if precision == "int8" else None, dla_core=1)
    assert record.dla_core == 1
    (placement,) = (step for step in bench.told.steps if step.startswith("DLA core 1 takes"))
    assert "RESIZE" in placement
    if precision == "int8" and load(tensorrt_version).number < (11, 0):
        assert bench.told.requests[0].int8_route == "implicit"


@parametrize("tensorrt_version", ["10.3.0"])
def test_a_dla_gets_a_scale_for_every_tensor(bench: Bench, machine: Machine, photographs: Path) -> None:
    machine.dla_cores = 1
    bench.make("int8", photographs, typing="weak", int8_route="qdq")
    bench.built("int8", bench.work / "calibration.json", dla_core=0)
    assert set(read_cache(bench.work / "calibration.cache")) == set(read_table(bench.work / "calibration.json").ranges)


def test_a_dla_that_is_not_there_is_refused(bench: Bench, machine: Machine) -> None:
    with pytest.raises(BackendError, match="has none under TensorRT") as caught:
        bench.make("fp16", dla_core=0)
    assert "leave out --dla" in caught.value.hint
    machine.dla_cores = 2
    with pytest.raises(BackendError, match="DLA core 2 was asked for") as caught:
        bench.make("fp16", dla_core=2)
    assert caught.value.hint == "--dla 1"


@parametrize("tensorrt_version", ["8.5.3.1", "11.4.0.106"])
def test_its_engine_is_inspected_on_its_core(
    bench: Bench, machine: Machine, tensorrt: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.dla_cores = 2
    cores: list[int] = []
    deserialise = tensorrt.Runtime.deserialize_cuda_engine

    def watch(runtime: Any, plan: Any) -> Any:
        cores.append(runtime.DLA_core)
        return deserialise(runtime, plan)

    monkeypatch.setattr(tensorrt.Runtime, "deserialize_cuda_engine", watch)
    for core in (None, 1):
        bench.built("fp16", dla_core=core)
    assert cores == [-1, 1]
