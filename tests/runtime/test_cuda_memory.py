"""The in-memory provider's own rules: what CUDA would punish with garbage is an error there, and it fails on demand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from edgesod.errors import BackendError, DeviceError
from edgesod.runtime.cuda import VARIABLE, Cuda, memory, open_cuda


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cuda]:
    monkeypatch.setenv(VARIABLE, "memory")
    with memory.simulated(), open_cuda() as opened:
        yield opened


def test_an_unsynchronised_read_is_an_error(cuda: Cuda) -> None:
    stream, device, host = cuda.stream(), cuda.malloc(8), cuda.pinned(8)
    cuda.d2h_async(host, device, stream)
    with pytest.raises(DeviceError, match="under way"):
        _ = host.array
    cuda.synchronise(cuda.stream())  # of another stream: no help
    with pytest.raises(DeviceError, match="under way"):
        _ = host.array
    cuda.synchronise(stream)
    assert (host.array == 0xCD).all()  # and memory that nobody wrote is not zero


def test_an_early_write_is_an_error(cuda: Cuda) -> None:
    stream, device, host = cuda.stream(), cuda.malloc(8), cuda.pinned(8)
    host.array[:] = 1
    cuda.h2d_async(device, host, stream)
    with pytest.raises(DeviceError, match="under way"):
        host.array[:] = 2
    cuda.synchronise()
    host.array[:] = 2


def test_kernels_hold_mapped_memory(cuda: Cuda) -> None:
    stream, both = cuda.stream(), cuda.mapped(8)
    view = both.array
    memory.enqueue(stream.handle, lambda: view.fill(7), writes=[both.pointer])
    with pytest.raises(DeviceError, match="under way"):
        _ = both.array
    cuda.synchronise(stream)
    assert (both.array == 7).all()


def test_kernels_on_what_is_not_there(cuda: Cuda) -> None:
    stream, buffer = cuda.stream(), cuda.malloc(8)
    with pytest.raises(DeviceError, match="buffer is not live"):
        memory.enqueue(stream.handle, lambda: None, reads=[buffer.pointer + 1])
    cuda.free(buffer)
    with pytest.raises(DeviceError, match="buffer is not live"):
        memory.enqueue(stream.handle, lambda: None, reads=[buffer.pointer])
    cuda.free(stream)
    with pytest.raises(DeviceError, match="stream is not live"):
        memory.enqueue(stream.handle, lambda: None)


def test_reading_what_was_freed(cuda: Cuda) -> None:
    host = cuda.pinned(8)
    cuda.free(host)
    with pytest.raises(DeviceError, match="freed"):
        _ = host.array


def test_no_waiting_while_a_graph_is_recorded(cuda: Cuda) -> None:
    stream = cuda.stream()
    with pytest.raises(DeviceError, match="captured"):
        cuda.capture(stream, lambda: cuda.synchronise(stream))
    cuda.synchronise(stream)


def test_events_that_never_happened(cuda: Cuda) -> None:
    with pytest.raises(DeviceError, match="never recorded"):
        cuda.elapsed_ms(cuda.event(), cuda.event())


def _use_everything() -> None:
    with open_cuda() as cuda:
        cuda.device_info(), cuda.mem_info()
        stream, device, host, both = cuda.stream(), cuda.malloc(8), cuda.pinned(8), cuda.mapped(8)
        began, ended = cuda.event(), cuda.event()
        cuda.record(began, stream)
        cuda.h2d_async(device, host, stream)
        graph = cuda.capture(stream, lambda: memory.enqueue(stream.handle, lambda: None, reads=[device.pointer]))
        cuda.launch(graph, stream)
        cuda.d2h_async(np.zeros(8, np.uint8), device, stream)
        cuda.record(ended, stream)
        cuda.synchronise(stream)
        cuda.elapsed_ms(began, ended)
        cuda.free(both)


@pytest.mark.parametrize("fault", ["out of memory", "lost"])
def test_a_fault_at_any_call_leaks_nothing(fault: memory.Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "memory")
    with memory.simulated() as driver:
        _use_everything()
        calls = driver.calls
    assert calls > 20
    words = []
    for n in range(1, calls + 1):
        with memory.simulated(fail_at=n, fault=fault) as driver:
            try:
                _use_everything()
            except BackendError as error:
                words.append(str(error))
            assert driver.calls >= n
            assert set(driver.live().values()) == {0}, (n, driver.live())
    assert len(words) >= 18  # what fails while closing has nobody to tell
    assert all(fault.split()[-1] in text for text in words)
