"""Inputs that lie in the GPU's memory already: read where they lie, after whoever wrote them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgesod.errors import InputError
from edgesod.runtime.cuda import Cuda, memory, open_cuda
from edgesod.runtime.tensorrt_session import TensorRtSession
from tests.helpers.engines import INPUT, OUTPUT
from tests.helpers.tensorrt import NEWEST, assert_right, feed


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
        assert_right(shared.run({"image": feed(seed)})["saliency"], feed(seed))  # with a graph by now
    here, there = _on_gpu(cuda, feed(7)), _on_gpu(cuda, feed(8))
    out = np.zeros(OUTPUT.shape, np.float32)
    shared.run_into({"image": _interface(here)}, {"saliency": out})
    assert_right(out, feed(7))
    assert "lies elsewhere" in shared.graph_reason
    assert shared.times_ms["h2d"] == 0
    producer = _DlPack(there)
    shared.run_into({"image": producer}, {"saliency": out})
    assert_right(out, feed(8))
    assert producer.streams == [shared._stream.handle]  # it was told where to have it ready
    assert_right(shared.run({"image": feed(9)})["saliency"], feed(9))
    assert shared.graph_reason == ""


@NEWEST
def test_a_producers_stream_is_waited_for(shared: TensorRtSession, cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[Any] = []
    wait = cuda.synchronise
    monkeypatch.setattr(cuda, "synchronise", lambda stream=None: (waited.append(stream), wait(stream)))
    pointer = _on_gpu(cuda, feed())
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
    assert_right(shared.run({"image": feed()})["saliency"], feed())


@NEWEST
def test_tensors_in_page_locked_memory_have_no_stream(shared: TensorRtSession, cuda: Cuda) -> None:
    producer = _DlPack(_on_gpu(cuda, feed(4)), device=(3, 0))
    out = np.zeros(OUTPUT.shape, np.float32)
    shared.run_into({"image": producer}, {"saliency": out})
    assert_right(out, feed(4))
    assert producer.streams == [None]


@NEWEST
def test_tensors_on_another_gpu(shared: TensorRtSession, cuda: Cuda) -> None:
    with pytest.raises(InputError, match="lies on GPU 1"):
        shared.run_async({"image": _DlPack(_on_gpu(cuda, feed()), device=(2, 1))})


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
    pointer = _on_gpu(cuda, feed())
    with pytest.raises(InputError, match=words):
        shared.run_async({"image": _interface(pointer, **changes)})
    with pytest.raises(InputError, match="type code 5"):
        shared.run_async({"image": _DlPack(pointer, code=5)})
    with pytest.raises(InputError, match="picture"):
        shared.run_async({"image": feed(), "picture": _interface(pointer)})
    assert_right(shared.run({"image": feed()})["saliency"], feed())


def test_dlpack_facts_agree_with_numpy() -> None:
    from edgesod.runtime.cuda.tensors import device_tensor

    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)[1:]
    found = device_tensor(SimpleNamespace(__dlpack__=lambda stream: array.__dlpack__()), 0)
    assert (found.pointer, found.shape, found.dtype) == (array.ctypes.data, array.shape, "int16")
    with pytest.raises(InputError, match="C-contiguous"):
        device_tensor(SimpleNamespace(__dlpack__=lambda stream: array[..., ::2].__dlpack__()), 0)


@NEWEST
def test_layers_are_timed_on_memory_that_is_there(session: TensorRtSession) -> None:
    cuda = session.cuda
    session.run({"image": feed()})  # after the first run the graph is recorded, in the session's own memory
    with cuda.bound():
        theirs, stream = cuda.malloc(feed().nbytes), cuda.stream()
        cuda.h2d_async(theirs, feed(), stream)
        cuda.synchronise(stream)
        session.run_async({"image": _interface(theirs.pointer)}).wait()
        cuda.free(theirs)  # and the simulated GPU takes a kernel on freed memory for an error
    assert len(session.layer_times(runs=1)) == 2
