"""Nothing is left behind, however a session ends: in order, a thousand times, after any fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgesod.errors import BackendError, DeviceError
from edgesod.manifest import Gpu
from edgesod.runtime import Runtime, open_session
from edgesod.runtime.cuda import Cuda, memory
from edgesod.runtime.tensorrt_session import TensorRtSession
from tests.contract.machine import Machine
from tests.helpers.tensorrt import NEWEST, NOTHING, assert_right, feed, left_of, make_tensorrt_engine, nothing_lives


@NEWEST
def test_tensorrts_objects_go_before_the_memory_they_use(plan: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[int] = []
    destroy = memory.MemoryCuda._destroy

    def watch(self: Cuda, resource: Any) -> None:
        alive.append(sum(machine.alive[name] for name in ("IExecutionContext", "ICudaEngine", "Runtime")))
        destroy(self, resource)

    monkeypatch.setattr(memory.MemoryCuda, "_destroy", watch)
    session = TensorRtSession(plan)
    session.run({"image": feed()})
    assert sum(machine.alive[name] for name in ("IExecutionContext", "ICudaEngine", "Runtime")) == 3
    session.close()
    assert alive == [3] + [0] * 9  # the graph, which was recorded from the context; four events, four buffers, a stream


@NEWEST
def test_a_thousand_cycles_leave_nothing(plan: Path, driver: memory.Driver, machine: Machine) -> None:
    image = feed()
    for _ in range(1000):
        with open_session(plan, "fp32") as session:
            session.run({"image": image})
    assert nothing_lives(machine)


def _alone(plan: Path) -> None:
    session = TensorRtSession(plan)
    with session:
        for seed in range(2):
            assert_right(session.run({"image": feed(seed)})["saliency"], feed(seed))


def _forked(plan: Path) -> None:
    session = TensorRtSession(plan)
    with session:
        other = session.fork()
        with other:
            for seed in range(2):
                pending = other.run_async({"image": feed(seed)})
                assert_right(session.run({"image": feed(seed)})["saliency"], feed(seed))
                assert_right(pending.wait()["saliency"], feed(seed))


@NEWEST
@pytest.mark.parametrize("cycle", [_alone, _forked])
@pytest.mark.parametrize("fault", ["out of memory", "lost"])
def test_a_fault_at_any_cuda_call_leaks_nothing(
    plan: Path, machine: Machine, fault: memory.Fault, cycle: Callable[[Path], None]
) -> None:
    with memory.simulated() as driver:
        cycle(plan)
        calls = driver.calls
    raised = 0
    for n in range(1, calls + 1):
        with memory.simulated(fail_at=n, fault=fault) as driver:
            try:
                cycle(plan)
            except BackendError as error:
                raised += 1
                del error
            assert driver.calls >= n
            assert driver.live() == NOTHING, n
        assert left_of(machine) == {}, n
    # the others are in closing, and recording the graph, without which the engine runs as well
    assert raised > calls / 2


@NEWEST
def test_engines_that_fail_to_run(plan: Path, monkeypatch: pytest.MonkeyPatch, driver: memory.Driver) -> None:
    session = TensorRtSession(plan)
    with session:
        session._context.set_tensor_address("image", 0)
        with pytest.raises(DeviceError, match=r"cannot run the engine: .*no address for"):
            session.run({"image": feed()})
    assert driver.live() == NOTHING


@NEWEST
def test_gpu_is_described(plan: Path) -> None:
    session = TensorRtSession(plan)
    with session, session.cuda.bound():
        assert isinstance(session.cuda.device_info(), Gpu)


def test_engine_folders_run(tmp_path: Path, tensorrt: ModuleType, driver: memory.Driver) -> None:
    folder = make_tensorrt_engine(tmp_path / "engine", tensorrt)
    with Runtime(folder) as runtime:
        assert runtime.backend == "tensorrt"
        frame = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
        assert_right(runtime(frame).map_hw[None, None], runtime._tensor)
    assert driver.live() == NOTHING
