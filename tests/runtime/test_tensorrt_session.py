"""Running engines with TensorRT: every version's fake on the in-memory GPU, against NumPy."""

from __future__ import annotations

import ctypes
import gc
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgesod.errors import BackendError, DeviceError, InputError
from edgesod.manifest import Gpu
from edgesod.runtime import Runtime, open_session
from edgesod.runtime.cuda import VARIABLE, Cuda, memory, open_cuda
from edgesod.runtime.powers import RunsAsync, StagesInputs, TimesStages
from edgesod.runtime.tensorrt_session import TensorRtSession
from tests.contract.machine import Machine
from tests.helpers.engines import INPUT, OUTPUT, RECIPE, run_tiny, write_tiny
from tests.helpers.tensorrt import make_tensorrt_engine, write_plan

NEWEST = pytest.mark.parametrize("tensorrt_version", ["11.4.0.106"])
NOTHING = {"buffers": 0, "streams": 0, "events": 0, "graphs": 0, "contexts": 0}


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


def _feed(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, INPUT.shape).astype(np.float32)


def _assert_right(found: np.ndarray, feed: np.ndarray) -> None:
    np.testing.assert_allclose(found, run_tiny(feed), atol=1e-5)


# -- every version -----------------------------------------------------------------------------------------------------


def test_computes_what_numpy_computes(plan: Path, machine: Machine, driver: memory.Driver) -> None:
    with open_session(plan, "fp32") as session:
        assert (session.backend, session.inputs, session.outputs) == ("tensorrt", (INPUT,), (OUTPUT,))
        for seed in range(3):  # an ordinary run, then the graph's
            _assert_right(session.run({"image": _feed(seed)})["saliency"], _feed(seed))
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
    _assert_right(session.run({"image": _feed()})["saliency"], _feed())


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
        batch = np.concatenate([_feed(0), _feed(1)])
        found = session.run({"image": batch})["saliency"]
    for k in range(2):
        _assert_right(found[k : k + 1], batch[k : k + 1])


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


# -- the contract of sessions, and what this one offers beyond it ------------------------------------------------------


@NEWEST
def test_layers_are_timed_on_memory_that_is_there(session: TensorRtSession) -> None:
    cuda = session.cuda
    session.run({"image": _feed()})  # after the first run the graph is recorded, in the session's own memory
    with cuda.bound():
        theirs, stream = cuda.malloc(_feed().nbytes), cuda.stream()
        cuda.h2d_async(theirs, _feed(), stream)
        cuda.synchronise(stream)
        session.run_async({"image": _interface(theirs.pointer)}).wait()
        cuda.free(theirs)  # and the simulated GPU takes a kernel on freed memory for an error
    assert len(session.layer_times(runs=1)) == 2


@NEWEST
def test_offers_the_optional_powers(session: TensorRtSession) -> None:
    assert isinstance(session, StagesInputs)
    assert isinstance(session, RunsAsync)
    assert isinstance(session, TimesStages)


@NEWEST
@pytest.mark.parametrize(
    "feeds", [{}, {"picture": _feed()}, {"image": _feed()[0]}, {"image": _feed().astype(np.float64)}, {"image": None}]
)
def test_refuses_other_feeds(session: TensorRtSession, feeds: dict[str, Any]) -> None:
    for run in (session.run, session.run_async):
        with pytest.raises(InputError, match="image"):
            run(feeds)
    _assert_right(session.run({"image": _feed()})["saliency"], _feed())


@NEWEST
def test_one_run_at_a_time(session: TensorRtSession) -> None:
    pending = session.run_async({"image": _feed()})
    with pytest.raises(BackendError, match="under way"):
        session.run({"image": _feed(1)})
    outputs = pending.wait()
    _assert_right(outputs["saliency"], _feed())
    with pytest.raises(BackendError, match="waited for already"):
        pending.wait()
    again = session.run_async({"image": _feed(1)}).wait()
    assert again["saliency"].ctypes.data == outputs["saliency"].ctypes.data  # the session's own, reused
    left = session.run_async({"image": _feed()})
    session.close()
    with pytest.raises(BackendError, match="closed"):
        left.wait()
    with pytest.raises(BackendError, match="closed"):
        session.run_async({"image": _feed()})
    with pytest.raises(BackendError, match="closed"):
        session.layer_times()


@NEWEST
def test_runs_into_the_callers_memory_and_allocates_nothing(session: TensorRtSession) -> None:
    out = np.zeros(OUTPUT.shape, np.float32)
    for _ in range(3):
        session.run_into({"image": _feed(2)}, {"saliency": out})
    _assert_right(out, _feed(2))
    with pytest.raises(InputError, match="saliency"):
        session.run_into({"image": _feed()}, {"saliency": out[0]})
    feed, largest = _feed(3), 0
    tracemalloc.start()
    try:
        for _ in range(5):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            session.run_async({"image": feed})  # not waited for: what follows is the fake's ONNX Runtime
            session._finish()
            largest = max(largest, tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    # the fake's own output is in there as well: one map, which a copy of the input or of the output would double
    assert largest < 2 * out.nbytes


@NEWEST
def test_staged_inputs_are_not_copied(session: TensorRtSession, monkeypatch: pytest.MonkeyPatch) -> None:
    session.staging["image"][:] = _feed(5)
    monkeypatch.setattr(np, "copyto", lambda *_: pytest.fail("copied"))
    found = session.run({"image": session.staging["image"]})["saliency"]
    monkeypatch.undo()
    _assert_right(found, _feed(5))


@NEWEST
def test_runtime_preprocesses_into_the_sessions_memory(plan: Path) -> None:
    session = TensorRtSession(plan)
    with Runtime.from_session(session, RECIPE) as runtime:
        assert np.shares_memory(runtime._tensor, session.staging["image"])
        frame = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
        first = runtime(frame)
        assert first.times_ms.keys() == {"preprocess", "inference", "postprocess", "h2d", "compute", "d2h"}
        _assert_right(first.map_hw[None, None], runtime._tensor)


@NEWEST
def test_stage_times(session: TensorRtSession) -> None:
    assert session.times_ms == {}
    session.run({"image": _feed()})
    times = session.times_ms
    assert times.keys() == {"h2d", "compute", "d2h"}
    assert times["compute"] == pytest.approx(1)  # the simulated GPU's millisecond for any kernel
    assert times["h2d"] / times["d2h"] == pytest.approx(_feed().nbytes / run_tiny(_feed()).nbytes)


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
                _assert_right(session.run({"image": _feed(seed)})["saliency"], _feed(seed))
            if expected == "mapped":
                assert session.times_ms["h2d"] == session.times_ms["d2h"] == 0
    assert driver.live() == NOTHING


@NEWEST
def test_memory_can_be_chosen(plan: Path) -> None:
    session = TensorRtSession(plan, memory="mapped")
    with session:
        assert session.memory == "mapped"
        _assert_right(session.run({"image": _feed()})["saliency"], _feed())


# -- CUDA graphs -------------------------------------------------------------------------------------------------------


@NEWEST
def test_graph_after_the_first_run(session: TensorRtSession, driver: memory.Driver) -> None:
    session.run({"image": _feed(0)})
    assert session.graph_reason
    assert driver.live()["graphs"] == 1
    _assert_right(session.run({"image": _feed(1)})["saliency"], _feed(1))
    assert session.graph_reason == ""


@NEWEST
def test_no_graph_when_not_asked_for(plan: Path, driver: memory.Driver) -> None:
    session = TensorRtSession(plan, graph=False)
    with session:
        session.run({"image": _feed()})
        session.run({"image": _feed()})
        assert session.graph_reason == "not asked for"
        assert driver.live()["graphs"] == 0


@NEWEST
def test_no_graph_where_the_provider_has_none(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.MemoryCuda, "has_graphs", False)
    session = TensorRtSession(plan)
    with session:
        session.run({"image": _feed()})
        _assert_right(session.run({"image": _feed(1)})["saliency"], _feed(1))
        assert session.graph_reason == "memory has no CUDA graphs"


@NEWEST
def test_engines_that_cannot_be_recorded_run_without(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise DeviceError("operation not permitted when stream is capturing")

    monkeypatch.setattr(memory.MemoryCuda, "_capture", refuse)
    session = TensorRtSession(plan)
    with session:
        for seed in range(3):
            _assert_right(session.run({"image": _feed(seed)})["saliency"], _feed(seed))
        assert "cannot be recorded: operation not permitted" in session.graph_reason


# -- tensors in the GPU's memory ---------------------------------------------------------------------------------------


@pytest.fixture
def cuda(plan: Path) -> Cuda:
    return open_cuda()


@pytest.fixture
def shared(plan: Path, cuda: Cuda) -> Iterator[TensorRtSession]:
    session = TensorRtSession(plan, cuda=cuda)
    with session:
        yield session


def _on_gpu(cuda: Cuda, array: np.ndarray) -> int:
    with cuda.bound():
        buffer, stream = cuda.malloc(array.nbytes), cuda.stream()
        cuda.h2d_async(buffer, np.ascontiguousarray(array), stream)
        cuda.synchronise(stream)
    return buffer.pointer


def _interface(pointer: int, **changes: Any) -> Any:
    facts = {"shape": INPUT.shape, "typestr": "<f4", "data": (pointer, False), "version": 3, "strides": None, "stream": None}
    return SimpleNamespace(__cuda_array_interface__=facts | changes)


class _DlPack:
    """A float32 tensor of the session's input shape, as a DLPack producer offers it, on the first GPU unless told otherwise."""

    def __init__(self, pointer: int, device: tuple[int, int] = (2, 0), code: int = 2) -> None:
        self.deleted, self.streams, self._device = 0, [], device
        shape = INPUT.shape
        self._shape = (ctypes.c_int64 * len(shape))(*shape)
        self._deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._delete)

        class Managed(ctypes.Structure):
            _fields_ = (
                ("data", ctypes.c_void_p),
                ("device", ctypes.c_int32 * 2),
                ("ndim", ctypes.c_int32),
                ("dtype", ctypes.c_uint8 * 4),
                ("shape", ctypes.c_void_p),
                ("strides", ctypes.c_void_p),
                ("byte_offset", ctypes.c_uint64),
                ("context", ctypes.c_void_p),
                ("deleter", ctypes.c_void_p),
            )

        self._managed = Managed(
            pointer - 16, device, len(shape), (code, 32, 1, 0), ctypes.addressof(self._shape), None, 16, None, None
        )

    def _delete(self, _: int) -> None:
        self.deleted += 1

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device

    def __dlpack__(self, *, stream: int) -> Any:
        self.streams.append(stream)
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return new(ctypes.addressof(self._managed), b"dltensor", None)


@NEWEST
def test_inputs_that_lie_on_the_gpu(shared: TensorRtSession, cuda: Cuda, driver: memory.Driver) -> None:
    for seed in range(3):
        _assert_right(shared.run({"image": _feed(seed)})["saliency"], _feed(seed))  # with a graph by now
    here, there = _on_gpu(cuda, _feed(7)), _on_gpu(cuda, _feed(8))
    out = np.zeros(OUTPUT.shape, np.float32)
    shared.run_into({"image": _interface(here)}, {"saliency": out})
    _assert_right(out, _feed(7))
    assert "lies elsewhere" in shared.graph_reason
    assert shared.times_ms["h2d"] == 0
    producer = _DlPack(there)
    shared.run_into({"image": producer}, {"saliency": out})
    _assert_right(out, _feed(8))
    assert producer.streams == [shared._stream.handle]  # it was told where to have it ready
    _assert_right(shared.run({"image": _feed(9)})["saliency"], _feed(9))
    assert shared.graph_reason == ""


@NEWEST
def test_a_producers_stream_is_waited_for(shared: TensorRtSession, cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[Any] = []
    wait = cuda.synchronise
    monkeypatch.setattr(cuda, "synchronise", lambda stream=None: (waited.append(stream), wait(stream)))
    pointer = _on_gpu(cuda, _feed())
    waited.clear()
    shared.run_async({"image": _interface(pointer, stream=1)}).wait()
    assert waited[0] is None  # the whole GPU, before anything was put into our stream
    waited.clear()
    silent = _interface(pointer, version=2)
    del silent.__cuda_array_interface__["stream"]  # as torch's: whoever does not speak of streams may still be writing
    shared.run_async({"image": silent}).wait()
    assert waited[0] is None
    waited.clear()
    shared.run_async({"image": _interface(pointer)}).wait()
    assert None not in waited  # version 3, and it says that there is nothing to wait for


class _Refusing:
    """A tensor whose producer does not hand it out."""

    requires_grad = True

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, *, stream: int) -> Any:
        raise self._error


class _RefusingInterface(_Refusing):
    @property
    def __cuda_array_interface__(self) -> Any:
        raise self._error


@NEWEST
@pytest.mark.parametrize("kind", [_Refusing, _RefusingInterface])
@pytest.mark.parametrize("error", [BufferError, AssertionError, RuntimeError])
def test_tensors_that_are_not_handed_out(shared: TensorRtSession, kind: Any, error: type[Exception]) -> None:
    with pytest.raises(InputError, match="requires a gradient") as caught:
        shared.run_async({"image": kind(error("it requires a gradient"))})
    assert caught.value.hint == "tensor.detach()"
    _assert_right(shared.run({"image": _feed()})["saliency"], _feed())


@NEWEST
def test_tensors_in_page_locked_memory_have_no_stream(shared: TensorRtSession, cuda: Cuda) -> None:
    producer = _DlPack(_on_gpu(cuda, _feed(4)), device=(3, 0))
    out = np.zeros(OUTPUT.shape, np.float32)
    shared.run_into({"image": producer}, {"saliency": out})
    _assert_right(out, _feed(4))
    assert producer.streams == [None]


@NEWEST
def test_tensors_on_another_gpu(shared: TensorRtSession, cuda: Cuda) -> None:
    with pytest.raises(InputError, match="lies on GPU 1"):
        shared.run_async({"image": _DlPack(_on_gpu(cuda, _feed()), device=(2, 1))})


@NEWEST
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": (1, 3, 48, 32)}, r"got float32 \(1, 3, 48, 32\)"),
        ({"typestr": "<f8"}, "got float64"),
        ({"strides": (4, 4, 4, 4)}, "C-contiguous"),
    ],
)
def test_gpu_tensors_that_do_not_fit(shared: TensorRtSession, cuda: Cuda, changes: dict[str, Any], words: str) -> None:
    pointer = _on_gpu(cuda, _feed())
    with pytest.raises(InputError, match=words):
        shared.run_async({"image": _interface(pointer, **changes)})
    with pytest.raises(InputError, match="type code 5"):
        shared.run_async({"image": _DlPack(pointer, code=5)})
    with pytest.raises(InputError, match="picture"):
        shared.run_async({"image": _feed(), "picture": _interface(pointer)})
    _assert_right(shared.run({"image": _feed()})["saliency"], _feed())


def test_dlpack_facts_agree_with_numpy() -> None:
    from edgesod.runtime.cuda.tensors import device_tensor

    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)[1:]
    found = device_tensor(SimpleNamespace(__dlpack__=lambda stream: array.__dlpack__()), 0)
    assert (found.pointer, found.shape, found.dtype) == (array.ctypes.data, array.shape, "int16")
    with pytest.raises(InputError, match="C-contiguous"):
        device_tensor(SimpleNamespace(__dlpack__=lambda stream: array[..., ::2].__dlpack__()), 0)


# -- nothing is left behind --------------------------------------------------------------------------------------------


@NEWEST
def test_tensorrts_objects_go_before_the_memory_they_use(plan: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[int] = []
    destroy = memory.MemoryCuda._destroy

    def watch(self: Cuda, resource: Any) -> None:
        alive.append(sum(machine.alive[name] for name in ("IExecutionContext", "ICudaEngine", "Runtime")))
        destroy(self, resource)

    monkeypatch.setattr(memory.MemoryCuda, "_destroy", watch)
    session = TensorRtSession(plan)
    session.run({"image": _feed()})
    assert sum(machine.alive[name] for name in ("IExecutionContext", "ICudaEngine", "Runtime")) == 3
    session.close()
    assert alive == [3] + [0] * 9  # the graph, which was recorded from the context; four events, four buffers, a stream


@NEWEST
def test_a_thousand_cycles_leave_nothing(plan: Path, driver: memory.Driver, machine: Machine) -> None:
    feed = _feed()
    for _ in range(1000):
        with open_session(plan, "fp32") as session:
            session.run({"image": feed})
    assert driver.live() == NOTHING
    gc.collect()
    assert {name: n for name, n in machine.alive.items() if n} == {}


def _cycle(plan: Path) -> None:
    session = TensorRtSession(plan)
    with session:
        for seed in range(2):
            _assert_right(session.run({"image": _feed(seed)})["saliency"], _feed(seed))


@NEWEST
@pytest.mark.parametrize("fault", ["out of memory", "lost"])
def test_a_fault_at_any_cuda_call_leaks_nothing(plan: Path, machine: Machine, fault: memory.Fault) -> None:
    with memory.simulated() as driver:
        _cycle(plan)
        calls = driver.calls
    raised = 0
    for n in range(1, calls + 1):
        with memory.simulated(fail_at=n, fault=fault) as driver:
            try:
                _cycle(plan)
            except BackendError as error:
                raised += 1
                del error
            assert driver.calls >= n
            assert driver.live() == NOTHING, n
        assert {name: n for name, n in machine.alive.items() if n and name != "ILogger"} == {}, n
    # the others are in closing, and recording the graph, without which the engine runs as well
    assert raised > calls / 2


@NEWEST
def test_engines_that_fail_to_run(plan: Path, monkeypatch: pytest.MonkeyPatch, driver: memory.Driver) -> None:
    session = TensorRtSession(plan)
    with session:
        session._context.set_tensor_address("image", 0)
        with pytest.raises(DeviceError, match=r"cannot run the engine: .*no address for"):
            session.run({"image": _feed()})
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
        _assert_right(runtime(frame).map_hw[None, None], runtime._tensor)
    assert driver.live() == NOTHING
