"""Several sessions on one engine: each its own context, stream and memory; the engine goes with the last."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from edgesod.errors import BackendError, DeviceError
from edgesod.runtime.cuda import memory
from edgesod.runtime.tensorrt_session import TensorRtSession
from tests.contract.machine import Machine
from tests.helpers.engines import write_tiny
from tests.helpers.tensorrt import NEWEST, NOTHING, assert_right, feed, write_plan

OF_ONE = {"buffers": 4, "streams": 1, "events": 4}


def _alive(machine: Machine) -> list[int]:
    gc.collect()
    return [machine.alive[name] for name in ("IExecutionContext", "ICudaEngine", "Runtime")]


def test_runs_of_one_thread_overlap(session: TensorRtSession, machine: Machine, driver: memory.Driver) -> None:
    other = session.fork()
    assert _alive(machine) == [2, 1, 1]
    assert {name: driver.live()[name] for name in OF_ONE} == {name: 2 * n for name, n in OF_ONE.items()}
    for seed in range(3):  # an ordinary run, then the graphs'
        first, second = session.run_async({"image": feed(seed)}), other.run_async({"image": feed(seed + 9)})
        assert_right(second.wait()["saliency"], feed(seed + 9))
        assert_right(first.wait()["saliency"], feed(seed))
    assert session.graph_reason == other.graph_reason == ""
    assert session.staging["image"].ctypes.data != other.staging["image"].ctypes.data
    other.close()


@NEWEST
@pytest.mark.parametrize("first", [0, 1])
def test_whichever_is_closed_first_the_other_runs_on(plan: Path, machine: Machine, driver: memory.Driver, first: int) -> None:
    session = TensorRtSession(plan)
    pair = [session, session.fork()]
    for one in pair:
        one.run({"image": feed()})
    pair[first].close()
    pair[first].close()
    with pytest.raises(BackendError, match="closed"):
        pair[first].run({"image": feed()})
    with pytest.raises(BackendError, match="closed"):
        pair[first].fork()
    assert _alive(machine) == [1, 1, 1]
    assert {name: driver.live()[name] for name in OF_ONE} == OF_ONE
    left = pair[1 - first]
    assert_right(left.run({"image": feed(1)})["saliency"], feed(1))
    third = left.fork()
    left.close()
    assert_right(third.run({"image": feed(2)})["saliency"], feed(2))
    third.close()
    assert driver.live() == NOTHING
    assert _alive(machine) == [0, 0, 0]
    destroyed = [name for name in machine.destroyed if name != "ILogger"]
    assert destroyed == ["IExecutionContext"] * 3 + ["ICudaEngine", "Runtime"]


@NEWEST
def test_closing_the_gpu_closes_all(plan: Path, machine: Machine, driver: memory.Driver) -> None:
    session = TensorRtSession(plan)
    other = session.fork()
    session.cuda.close()
    assert driver.live() == NOTHING
    assert _alive(machine) == [0, 0, 0]
    for one in (session, other):
        with pytest.raises(BackendError, match="closed"):
            one.run({"image": feed()})
        one.close()


@NEWEST
def test_threads_take_turns(plan: Path, driver: memory.Driver) -> None:
    session = TensorRtSession(plan)
    spare = session.fork()
    found: dict[int, list[np.ndarray]] = {}

    def work(number: int, mine: TensorRtSession) -> None:
        with mine:
            found[number] = [mine.run({"image": feed(10 * number + k)})["saliency"] for k in range(5)]

    threads = [threading.Thread(target=work, args=(n, session if n == 0 else session.fork())) for n in range(4)]
    for thread in threads:
        thread.start()
    with spare.cuda.bound():  # whoever holds the GPU may fork and close while others want to
        spare.fork().close()
        spare.close()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    for number in range(4):
        for k, saliency in enumerate(found[number]):
            assert_right(saliency, feed(10 * number + k))
    assert driver.live() == NOTHING


@NEWEST
def test_a_fork_that_fails_leaves_the_session_as_it_was(session: TensorRtSession, driver: memory.Driver) -> None:
    session.run({"image": feed()})
    before, calls = driver.live(), driver.calls
    session.fork().close()
    spent = driver.calls - calls
    assert driver.live() == before
    failed = 0
    for n in range(1, spent + 1):
        driver.fail_at = driver.calls + n
        try:
            session.fork().close()
        except DeviceError:
            failed += 1
        driver.fail_at = None
        assert driver.live() == before, n
        assert_right(session.run({"image": feed(n)})["saliency"], feed(n))
    assert failed >= 10  # context, four buffers, a stream, four events


@pytest.mark.parametrize("tensorrt_version", ["8.6.1", "10.3.0"])
def test_a_free_batch_before_10_is_for_one(
    tmp_path: Path, tensorrt: ModuleType, tensorrt_version: str, driver: memory.Driver, machine: Machine
) -> None:
    model = onnx.load(str(write_tiny(tmp_path / "m.onnx")))
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.save(model, tmp_path / "m.onnx")
    shapes = [(n, *feed().shape[1:]) for n in (1, 2, 4)]
    plan = write_plan(tmp_path / "m.plan", tensorrt, onnx=tmp_path / "m.onnx", profiles=[{"image": shapes}])
    session = TensorRtSession(plan)
    with session:
        if tensorrt_version == "8.6.1":
            for another in (session.fork, session.layer_times):
                with pytest.raises(BackendError, match=r"TensorRT 8\.6\.1 has one execution context alone"):
                    another()
        else:
            other = session.fork()
            with other:
                assert_right(other.run({"image": feed(3)})["saliency"], feed(3))
        assert_right(session.run({"image": feed(4)})["saliency"], feed(4))
    assert driver.live() == NOTHING
    assert _alive(machine) == [0, 0, 0]
