"""CUDA by every provider: the in-memory one, and the two real ones over stand-ins of the packages they call."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from edgesod.errors import BackendError, DeviceError
from edgesod.runtime.cuda import VARIABLE, Cuda, memory, open_cuda
from tests.helpers.cuda_stand_ins import TOO_MUCH, PyCudaDriver, RuntimeApi, install

Alive = Callable[[], dict[str, int]]


@pytest.fixture(params=["memory", "cuda-python", "pycuda"])
def provider(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Alive]:
    """Each provider in turn; gives a function that says what is alive, zeroes left out."""
    monkeypatch.setenv(VARIABLE, request.param)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if request.param == "memory":
        with memory.simulated() as driver:
            yield lambda: {name: n for name, n in driver.live().items() if n}
    else:
        stand_in = RuntimeApi() if request.param == "cuda-python" else PyCudaDriver()
        install(monkeypatch, stand_in)
        yield stand_in.alive


def _copy_there_and_back(cuda: Cuda) -> None:
    stream, device, host = cuda.stream(), cuda.malloc(256), cuda.pinned(256)
    back = cuda.pinned(256)
    host.array[:] = np.arange(256)
    cuda.h2d_async(device, host, stream)
    cuda.d2h_async(back, device, stream)
    cuda.synchronise(stream)
    np.testing.assert_array_equal(back.array, np.arange(256))
    whole = np.arange(32, dtype=np.float64)
    cuda.h2d_async(device, whole, stream)
    found = np.zeros(16)
    cuda.d2h_async(found, device, stream)
    cuda.synchronise()
    np.testing.assert_array_equal(found, np.arange(16))


def test_copies(provider: Alive) -> None:
    with open_cuda() as cuda:
        _copy_there_and_back(cuda)
    assert provider() == {}


def test_describes_the_gpu(provider: Alive) -> None:
    with open_cuda() as cuda:
        gpu = cuda.device_info()
        free, total = cuda.mem_info()
    assert gpu.compute_capability == (8, 7)
    assert gpu.driver == (12, 6)
    assert gpu.name in gpu.text
    assert 0 < free <= total == gpu.memory_bytes


def test_mapped_memory_has_two_faces(provider: Alive) -> None:
    with open_cuda() as cuda:
        both = cuda.mapped(64)
        assert both.array.shape == (64,)
        assert both.pointer > 0
        with pytest.raises(DeviceError, match="GPU alone"):
            _ = cuda.malloc(64).array


def test_events_take_the_time(provider: Alive) -> None:
    with open_cuda() as cuda:
        stream, began, ended = cuda.stream(), cuda.event(), cuda.event()
        cuda.record(began, stream)
        cuda.h2d_async(cuda.malloc(1 << 20), cuda.pinned(1 << 20), stream)
        cuda.record(ended, stream)
        cuda.synchronise(stream)
        assert cuda.elapsed_ms(began, ended) > 0


def test_graphs_replay_what_was_recorded(provider: Alive) -> None:
    with open_cuda() as cuda:
        stream, device, host = cuda.stream(), cuda.malloc(4), cuda.pinned(4)
        back = cuda.pinned(4)

        def work() -> None:
            cuda.h2d_async(device, host, stream)
            cuda.d2h_async(back, device, stream)

        if not cuda.has_graphs:
            with pytest.raises(BackendError, match="no CUDA graphs"):
                cuda.capture(stream, work)
            return
        host.array[:], back.array[:] = 1, 0
        graph = cuda.capture(stream, work)
        assert (back.array == 0).all(), "capturing ran the work"
        for value in (2, 3):
            host.array[:] = value
            cuda.launch(graph, stream)
            cuda.synchronise(stream)
            assert (back.array == value).all()
        with pytest.raises(ZeroDivisionError):
            cuda.capture(stream, lambda: print(1 / 0))
        cuda.launch(graph, stream)  # the stream is an ordinary one again
        cuda.synchronise(stream)
    assert provider() == {}


def test_freed_things_are_dead(provider: Alive) -> None:
    with open_cuda() as cuda:
        stream, device, host, event = cuda.stream(), cuda.malloc(8), cuda.pinned(8), cuda.event()
        cuda.free(device)
        with pytest.raises(DeviceError, match="buffer was freed"):
            cuda.free(device)
        with pytest.raises(DeviceError, match="buffer was freed"):
            cuda.h2d_async(device, host, stream)
        device = cuda.malloc(8)
        cuda.free(stream, event)
        with pytest.raises(DeviceError, match="stream was freed"):
            cuda.h2d_async(device, host, stream)
        with pytest.raises(DeviceError, match="event was freed"):
            cuda.record(event, cuda.stream())
        with open_cuda() as other, pytest.raises(DeviceError, match="another context"):
            other.free(device)


def test_copies_that_do_not_fit(provider: Alive) -> None:
    with open_cuda() as cuda:
        stream, device = cuda.stream(), cuda.malloc(8)
        with pytest.raises(DeviceError, match="16 bytes"):
            cuda.h2d_async(device, np.zeros(2), stream)
        with pytest.raises(DeviceError, match="16 bytes"):
            cuda.d2h_async(np.zeros(2), device, stream)
        with pytest.raises(DeviceError, match="contiguous"):
            cuda.h2d_async(device, np.zeros((2, 4), np.uint8)[:, ::2], stream)
        with pytest.raises(DeviceError, match="memory of the GPU"):
            cuda.h2d_async(device, cuda.malloc(8), stream)


@pytest.mark.parametrize("provider", ["cuda-python", "pycuda"], indirect=True)
@pytest.mark.parametrize("kind", ["malloc", "pinned", "mapped"])
def test_too_much_memory_is_an_error_that_says_so(provider: Alive, kind: str) -> None:
    with open_cuda() as cuda, pytest.raises(DeviceError, match=r"out of memory: 1048576\.0 MiB") as caught:
        getattr(cuda, kind)(TOO_MUCH)
    assert caught.value.exit_code == 4
    assert provider() == {}


def test_one_thread_at_a_time(provider: Alive) -> None:
    cuda, errors, order = open_cuda(), [], []
    with pytest.raises(DeviceError, match="does not own it"):
        cuda.mem_info()  # this one opened it, but is not within bound()

    def without() -> None:
        try:
            cuda.malloc(8)
        except DeviceError as error:
            errors.append(error)

    def waits() -> None:
        with cuda.bound():
            order.append("other")
            _copy_there_and_back(cuda)

    with cuda.bound(), cuda.bound():
        thread = threading.Thread(target=without)
        thread.start()
        thread.join()
        waiting = threading.Thread(target=waits)
        waiting.start()
        waiting.join(0.05)
        order.append("this")
    waiting.join()
    assert len(errors) == 1
    assert order == ["this", "other"]
    closing = threading.Thread(target=cuda.close)  # whoever it is may close
    closing.start()
    closing.join()
    assert provider() == {}


def test_closing(provider: Alive) -> None:
    told: list[str] = []
    cuda = open_cuda()
    cuda.before_close(lambda: told.append("first registered"))
    cuda.before_close(lambda: told.append("last registered"))
    with cuda.bound():
        cuda.malloc(8), cuda.pinned(8), cuda.mapped(8), cuda.stream(), cuda.event()
    assert sum(provider().values()) >= 5
    cuda.close()
    cuda.close()
    assert told == ["last registered", "first registered"]
    assert provider() == {}
    with pytest.raises(DeviceError, match="closed"), cuda.bound():
        pass
    with pytest.raises(DeviceError, match="closed"):
        cuda.malloc(8)


def test_closing_within_a_block(provider: Alive) -> None:
    with open_cuda() as cuda:
        cuda.malloc(8)
        cuda.close()
    assert provider() == {}
    with open_cuda() as again:  # nothing of the first is in its way
        _copy_there_and_back(again)
    with pytest.raises(ZeroDivisionError), open_cuda() as cuda:
        cuda.malloc(8 // 0)
    assert provider() == {}


def test_what_nobody_closed_is_closed_at_exit() -> None:
    code = """
import atexit, sys
atexit.register(lambda: print(*sys.modules["edgesod.runtime.cuda.memory"].driver().live().values()))  # first in, last out
from edgesod.runtime.cuda import memory, open_cuda
cuda = open_cuda()
block = cuda.bound()
block.__enter__()
cuda.malloc(8), cuda.stream()
print(*memory.driver().live().values())
"""
    environment = os.environ | {VARIABLE: "memory", "PYTHONWARNINGS": "error"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines() == ["1 1 0 0 1", "0 0 0 0 0"]
    assert done.stderr == ""


def test_a_failing_call_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "cuda-python")
    stand_in = RuntimeApi()
    install(monkeypatch, stand_in)
    with open_cuda() as cuda:
        stand_in.fails["cudaStreamSynchronize"] = stand_in.cudaError_t.cudaErrorInvalidValue
        with pytest.raises(DeviceError, match=r"cudaStreamSynchronize failed: the text of 1 \(cudaErrorInvalidValue\)"):
            cuda.synchronise(cuda.stream())
        assert not stand_in.last, "TensorRT would find it, and take it for its own"
        stand_in.fails["cudaHostGetDevicePointer"] = stand_in.cudaError_t.cudaErrorInvalidValue
        with pytest.raises(DeviceError, match="cudaHostGetDevicePointer"):
            cuda.mapped(8)
    assert stand_in.alive() == {}


# -- the packages themselves, where they are ---------------------------------------------------------------------------


def test_the_stand_in_calls_what_cuda_python_has() -> None:
    real = pytest.importorskip("cuda.bindings.runtime")
    for name, function in inspect.getmembers(RuntimeApi, inspect.isfunction):
        if name.startswith("cuda"):
            shown = (getattr(real, name).__doc__ or "").strip().splitlines()[0]
            arguments = [word for word in shown[shown.index("(") + 1 : shown.rindex(")")].split(",") if word]
            assert len(arguments) == len(inspect.signature(function).parameters) - 1, shown
    for kind in ("cudaError_t", "cudaMemcpyKind", "cudaStreamCaptureMode"):
        for member in getattr(RuntimeApi, kind):
            assert getattr(getattr(real, kind), member.name).value == member.value


def test_the_providers_call_nothing_that_the_stand_in_lacks() -> None:
    from edgesod.runtime.cuda import cuda_python

    called = set(re.findall(r'"(cuda[A-Z]\w+)"|_rt\.(cuda[A-Z]\w+)\(', inspect.getsource(cuda_python)))
    names = {a or b for a, b in called} - {e for e in dir(RuntimeApi.cudaError_t) if e.startswith("cudaError")}
    assert {n for n in names if not n.startswith(("cudaError", "cudaSuccess"))} <= set(dir(RuntimeApi))


@pytest.mark.parametrize("name", ["cuda-python", "pycuda"])
def test_the_real_package_works_or_says_why_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cuda.bindings.runtime" if name == "cuda-python" else "pycuda", exc_type=ImportError)
    monkeypatch.setenv(VARIABLE, name)
    cuda: Cuda | None = None
    try:
        cuda = open_cuda()
    except BackendError as error:
        refusal = error
    if cuda is None:
        assert refusal.exit_code == 4
        assert re.search("no NVIDIA driver|no GPU|serves CUDA", str(refusal))
        assert refusal.hint
    else:
        with cuda:
            _copy_there_and_back(cuda)


def test_closing_after_an_attach_that_failed_leaves_other_contexts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "pycuda")
    driver = PyCudaDriver()
    install(monkeypatch, driver)
    cuda = open_cuda()
    driver._stack().append("somebody else's")

    def busy() -> None:
        raise DeviceError("busy")

    monkeypatch.setattr(cuda, "_attach", busy)
    cuda.close()
    assert driver._stack() == ["somebody else's"]
