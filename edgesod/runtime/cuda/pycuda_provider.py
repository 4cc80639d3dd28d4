"""CUDA by pycuda: built from source on any board that has CUDA's headers; no CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from numpy.typing import NDArray

from edgesod.errors import BackendError, DeviceError
from edgesod.manifest import Gpu
from edgesod.runtime.cuda.at_exit import at_exit_after_all
from edgesod.runtime.cuda.base import Cuda
from edgesod.runtime.cuda.failures import does_not_start, no_device, no_driver, out_of_memory
from edgesod.runtime.cuda.resources import Buffer, Event, Graph, Stream

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING


class PyCuda(Cuda):
    """The primary context, pushed by the thread that owns it and popped when it leaves; never ``pycuda.autoinit``.

    pycuda frees what nobody refers to any more, so letting go of a native object is what frees it.

    Raises:
        BackendError: No driver, or no GPU.
    """

    name = "pycuda"
    has_graphs = False

    def __init__(self, index: int = 0) -> None:
        try:
            import pycuda.driver as driver
        except ImportError as error:
            if "libcuda" not in str(error):
                raise
            raise no_driver(str(error)) from error
        self._drv: Any = driver
        try:
            driver.init()
            count = driver.Device.count()
        except driver.Error as error:
            if "no CUDA-capable device" in str(error):
                raise no_device(0) from error
            raise (no_driver if "stub library" in str(error) else does_not_start)(str(error)) from error
        if count <= index:
            raise no_device(count)
        self._device = driver.Device(index)
        with self._errors("the GPU's context cannot be had"):
            self._context = _primary_context(index)
        super().__init__()

    def _attach(self) -> None:
        with self._errors("the GPU's context cannot be entered"):
            self._context.push()

    def _detach(self) -> None:
        with self._errors("the GPU's context cannot be left"):
            self._drv.Context.pop()

    def _release(self) -> None:
        pass  # the primary context is the process's: others may be using it

    def _device_info(self) -> Gpu:
        with self._errors("the GPU does not describe itself"):
            version = self._drv.get_driver_version()
            return Gpu(
                name=self._device.name(),
                compute_capability=self._device.compute_capability(),
                memory_bytes=self._device.total_memory(),
                is_integrated=bool(self._device.get_attribute(self._drv.device_attribute.INTEGRATED)),
                driver=(version // 1000, version % 1000 // 10),
            )

    def _mem_info(self) -> tuple[int, int]:
        with self._errors("the GPU does not tell its memory"):
            free, total = self._drv.mem_get_info()
        return int(free), int(total)

    def _malloc(self, nbytes: int) -> Buffer:
        with self._errors("allocating failed", (nbytes, "the GPU's memory")):
            native = self._drv.mem_alloc(nbytes)
        return Buffer(native, int(native), nbytes)

    def _pinned(self, nbytes: int) -> Buffer:
        array = self._page_locked(nbytes, 0)
        return Buffer(array.base, array.ctypes.data, nbytes, array)

    def _mapped(self, nbytes: int) -> Buffer:
        array = self._page_locked(nbytes, self._drv.host_alloc_flags.DEVICEMAP)
        with self._errors("page-locked memory cannot be mapped"):
            pointer = int(array.base.get_device_pointer())
        return Buffer(array.base, pointer, nbytes, array)

    def _page_locked(self, nbytes: int, flags: int) -> Any:
        with self._errors("allocating failed", (nbytes, "page-locked memory")):
            return self._drv.pagelocked_empty(nbytes, "uint8", mem_flags=flags)

    def _stream(self) -> Stream:
        with self._errors("no stream can be had"):
            native = self._drv.Stream(_NON_BLOCKING)
        return Stream(native, int(native.handle))

    def _event(self) -> Event:
        with self._errors("no event can be had"):
            return Event(self._drv.Event())

    def _destroy(self, resource: Any) -> None:
        native, resource.native = resource.native, None
        with self._errors("freeing failed"):
            if isinstance(resource, Buffer):
                resource.host = None
                native.free()
            del native

    def _copy(self, device: Buffer, host: Buffer | NDArray[Any], stream: Stream, *, to_device: bool) -> None:
        array = host.array if isinstance(host, Buffer) else host
        with self._errors("copying failed"):
            if to_device:
                self._drv.memcpy_htod_async(device.pointer, array, stream.native)
            else:
                self._drv.memcpy_dtoh_async(array, device.pointer, stream.native)

    def _synchronise(self, stream: Stream | None) -> None:
        with self._errors("the GPU's work failed"):
            if stream is None:
                self._drv.Context.synchronize()
            else:
                stream.native.synchronize()

    def _record(self, event: Event, stream: Stream) -> None:
        with self._errors("recording an event failed"):
            event.native.record(stream.native)

    def _elapsed_ms(self, first: Event, second: Event) -> float:
        with self._errors("timing failed"):
            return float(first.native.time_till(second.native))

    def _capture(self, stream: Stream, work: Callable[[], None]) -> Graph:
        raise BackendError("pycuda has no CUDA graphs", hint="pip install cuda-python")

    def _launch(self, graph: Graph, stream: Stream) -> None:
        raise BackendError("pycuda has no CUDA graphs", hint="pip install cuda-python")

    @contextmanager
    def _errors(self, what: str, asked: tuple[int, str] | None = None) -> Iterator[None]:
        try:
            yield
        except self._drv.MemoryError as error:
            raise out_of_memory(*asked) if asked else DeviceError(f"{what}: {error}") from error
        except self._drv.Error as error:
            raise DeviceError(f"{what}: {error}", hint="`nvidia-smi` or `dmesg` may say why") from error


@cache
def _primary_context(index: int) -> Any:
    # Retained once and kept, as CUDA's own runtime does: pycuda lets go of a context by pushing it once more, which after the
    # last release leaves the thread with a dead one on its stack, and in another thread than the retaining one not at all.
    import pycuda.driver as driver

    context = driver.Device(index).retain_primary_context()
    at_exit_after_all(context.detach)  # its destructor would take it for a context of pycuda's own, fail and say so
    return context
