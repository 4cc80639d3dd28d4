"""Running engines with TensorRT: every version's fake on the in-memory GPU, against NumPy."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgesod.errors import BackendError, DeviceError, InputError
from edgesod.runtime import Runtime, open_session
from edgesod.runtime.cuda import memory
from edgesod.runtime.powers import RunsAsync, StagesInputs, TimesStages
from edgesod.runtime.tensorrt_session import TensorRtSession
from tests.contract.machine import Machine
from tests.helpers.engines import INPUT, OUTPUT, RECIPE, run_tiny, write_tiny
from tests.helpers.tensorrt import NEWEST, NOTHING, assert_right, feed, write_plan


def test_computes_what_numpy_computes(plan: Path, machine: Machine, driver: memory.Driver) -> None:
    with open_session(plan, "fp32") as session:
        assert (session.backend, session.inputs, session.outputs) == ("tensorrt", (INPUT,), (OUTPUT,))
        for seed in range(3):  # an ordinary run, then the graph's
            assert_right(session.run({"image": feed(seed)})["saliency"], feed(seed))
    assert driver.live() == NOTHING
    assert [name for name in machine.destroyed if name != "ILogger"] == ["IExecutionContext", "ICudaEngine", "Runtime"]


def test_times_its_layers(session: TensorRtSession, machine: Machine) -> None:
    layers = session.layer_times(runs=3)
    assert [layer.name for layer in layers] == ["conv", "sigmoid"]
    assert [layer.ms for layer in layers] == pytest.approx([0.01, 0.02])  # what the fake reports
    assert sum(layer.share for layer in layers) == pytest.approx(1)
    gc.collect()
    assert machine.alive["IExecutionContext"] == 1
    assert machine.alive["IProfiler"] == 0
    assert_right(session.run({"image": feed()})["saliency"], feed())


def test_free_batch_takes_the_profiles_smallest(tmp_path: Path, tensorrt: ModuleType, driver: memory.Driver) -> None:
    import onnx

    model = onnx.load(str(write_tiny(tmp_path / "m.onnx")))
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.save(model, tmp_path / "m.onnx")
    shapes = [(n, *INPUT.shape[1:]) for n in (2, 4, 8)]
    plan = write_plan(tmp_path / "m.plan", tensorrt, onnx=tmp_path / "m.onnx", profiles=[{"image": shapes}])
    with open_session(plan, "fp32") as session:
        assert session.inputs[0].shape == shapes[0]
        assert session.outputs[0].shape == (2, *OUTPUT.shape[1:])
        batch = np.concatenate([feed(0), feed(1)])
        found = session.run({"image": batch})["saliency"]
    for k in range(2):
        assert_right(found[k : k + 1], batch[k : k + 1])


@pytest.mark.parametrize(
    ("method", "enum", "member"),
    [("get_tensor_format", "TensorFormat", "CHW32"), ("get_tensor_location", "TensorLocation", "HOST")],
)
def test_layouts_that_numpy_does_not_have(
    plan: Path,
    tensorrt: ModuleType,
    driver: memory.Driver,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    enum: str,
    member: str,
) -> None:
    value = getattr(getattr(tensorrt, enum), member)
    monkeypatch.setattr(tensorrt.ICudaEngine, method, lambda *_: value)
    with pytest.raises(BackendError, match=rf"'image' of the engine is .*{member}"):
        open_session(plan, "fp32")
    assert driver.live() == NOTHING


@NEWEST
def test_types_that_numpy_does_not_have(
    plan: Path, tensorrt: ModuleType, driver: memory.Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt.ICudaEngine, "get_tensor_dtype", lambda *_: tensorrt.DataType.BF16)
    with pytest.raises(BackendError, match="'image' of the engine is BF16"):
        open_session(plan, "fp32")
    assert driver.live() == NOTHING


@NEWEST
def test_sizes_that_no_shape_gives(
    plan: Path, tensorrt: ModuleType, driver: memory.Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt.IExecutionContext, "get_tensor_shape", lambda *_: tensorrt.Dims((1, -1)))
    with pytest.raises(BackendError, match=r"size of 'image' of the engine depends on what it computes: \(1, -1\)"):
        open_session(plan, "fp32")
    assert driver.live() == NOTHING


@NEWEST
def test_offers_the_optional_powers(session: TensorRtSession) -> None:
    assert isinstance(session, StagesInputs)
    assert isinstance(session, RunsAsync)
    assert isinstance(session, TimesStages)


@NEWEST
@pytest.mark.parametrize(
    "feeds", [{}, {"picture": feed()}, {"image": feed()[0]}, {"image": feed().astype(np.float64)}, {"image": None}]
)
def test_refuses_other_feeds(session: TensorRtSession, feeds: dict[str, Any]) -> None:
    for run in (session.run, session.run_async):
        with pytest.raises(InputError, match="image"):
            run(feeds)
    assert_right(session.run({"image": feed()})["saliency"], feed())


@NEWEST
def test_one_run_at_a_time(session: TensorRtSession) -> None:
    pending = session.run_async({"image": feed()})
    with pytest.raises(BackendError, match="under way"):
        session.run({"image": feed(1)})
    outputs = pending.wait()
    assert_right(outputs["saliency"], feed())
    with pytest.raises(BackendError, match="waited for already"):
        pending.wait()
    again = session.run_async({"image": feed(1)}).wait()
    assert again["saliency"].ctypes.data == outputs["saliency"].ctypes.data  # the session's own, reused
    left = session.run_async({"image": feed()})
    session.close()
    with pytest.raises(BackendError, match="closed"):
        left.wait()
    with pytest.raises(BackendError, match="closed"):
        session.run_async({"image": feed()})
    with pytest.raises(BackendError, match="closed"):
        session.layer_times()


@NEWEST
def test_runs_into_the_callers_memory_and_allocates_nothing(session: TensorRtSession) -> None:
    out = np.zeros(OUTPUT.shape, np.float32)
    for _ in range(3):
        session.run_into({"image": feed(2)}, {"saliency": out})
    assert_right(out, feed(2))
    with pytest.raises(InputError, match="saliency"):
        session.run_into({"image": feed()}, {"saliency": out[0]})
    image, largest = feed(3), 0
    tracemalloc.start()
    try:
        for _ in range(5):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            session.run_async({"image": image})  # not waited for: what follows is the fake's ONNX Runtime
            session._finish()
            largest = max(largest, tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    # the fake's own output is in there as well: one map, which a copy of the input or of the output would double
    assert largest < 2 * out.nbytes


@NEWEST
def test_staged_inputs_are_not_copied(session: TensorRtSession, monkeypatch: pytest.MonkeyPatch) -> None:
    session.staging["image"][:] = feed(5)
    monkeypatch.setattr(np, "copyto", lambda *_: pytest.fail("copied"))
    found = session.run({"image": session.staging["image"]})["saliency"]
    monkeypatch.undo()
    assert_right(found, feed(5))


@NEWEST
def test_runtime_preprocesses_into_the_sessions_memory(plan: Path) -> None:
    session = TensorRtSession(plan)
    with Runtime.from_session(session, RECIPE) as runtime:
        assert np.shares_memory(runtime._tensor, session.staging["image"])
        frame = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
        first = runtime(frame)
        assert first.times_ms.keys() == {"preprocess", "inference", "postprocess", "h2d", "compute", "d2h"}
        assert_right(first.map_hw[None, None], runtime._tensor)


@NEWEST
def test_stage_times(session: TensorRtSession) -> None:
    assert session.times_ms == {}
    session.run({"image": feed()})
    times = session.times_ms
    assert times.keys() == {"h2d", "compute", "d2h"}
    assert times["compute"] == pytest.approx(1)  # the simulated GPU's millisecond for any kernel
    assert times["h2d"] / times["d2h"] == pytest.approx(feed().nbytes / run_tiny(feed()).nbytes)


@NEWEST
@pytest.mark.parametrize(("setting", "is_integrated", "expected"), [("auto", True, "mapped"), ("auto", False, "pinned")])
def test_memory_follows_the_device(plan: Path, setting: Any, is_integrated: bool, expected: str) -> None:
    gpu = memory.GPU.model_copy(update={"is_integrated": is_integrated})
    with memory.simulated(gpus=(gpu,)) as driver:
        session = TensorRtSession(plan, memory=setting)
        with session:
            assert session.memory == expected
            assert driver.live()["buffers"] == (2 if expected == "mapped" else 4)
            for seed in range(3):
                assert_right(session.run({"image": feed(seed)})["saliency"], feed(seed))
            if expected == "mapped":
                assert session.times_ms["h2d"] == session.times_ms["d2h"] == 0
    assert driver.live() == NOTHING


@NEWEST
def test_memory_can_be_chosen(plan: Path) -> None:
    session = TensorRtSession(plan, memory="mapped")
    with session:
        assert session.memory == "mapped"
        assert_right(session.run({"image": feed()})["saliency"], feed())


@NEWEST
def test_graph_after_the_first_run(session: TensorRtSession, driver: memory.Driver) -> None:
    session.run({"image": feed(0)})
    assert session.graph_reason
    assert driver.live()["graphs"] == 1
    assert_right(session.run({"image": feed(1)})["saliency"], feed(1))
    assert session.graph_reason == ""
    assert session.facts == {
        "gpu": memory.GPU.text,
        "cuda_provider": "memory",
        "gpu_memory": "pinned",
        "graph_reason": "",
    }


@NEWEST
def test_no_graph_when_not_asked_for(plan: Path, driver: memory.Driver) -> None:
    session = TensorRtSession(plan, graph=False)
    with session:
        session.run({"image": feed()})
        session.run({"image": feed()})
        assert session.graph_reason == "not asked for"
        assert driver.live()["graphs"] == 0


@NEWEST
def test_no_graph_where_the_provider_has_none(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.MemoryCuda, "has_graphs", False)
    session = TensorRtSession(plan)
    with session:
        session.run({"image": feed()})
        assert_right(session.run({"image": feed(1)})["saliency"], feed(1))
        assert session.graph_reason == "memory has no CUDA graphs"


@NEWEST
def test_engines_that_cannot_be_recorded_run_without(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise DeviceError("operation not permitted when stream is capturing")

    monkeypatch.setattr(memory.MemoryCuda, "_capture", refuse)
    session = TensorRtSession(plan)
    with session:
        for seed in range(3):
            assert_right(session.run({"image": feed(seed)})["saliency"], feed(seed))
        assert "cannot be recorded: operation not permitted" in session.graph_reason
