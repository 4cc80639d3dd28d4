"""CUDA by cuda-python's runtime API: wheels for x86-64 and aarch64, and CUDA graphs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesod.errors import BackendError, DeviceError
from edgesod.manifest import Gpu
from edgesod.runtime.cuda.base import Cuda
from edgesod.runtime.cuda.failures import does_not_start, no_device, no_driver, out_of_memory
from edgesod.runtime.cuda.resources import Buffer, Event, Graph, Stream

_NON_BLOCKING = 1  # cudaStreamNonBlocking
_MAPPED = 2  # cudaHostAllocMapped
_DRIVER_IS_AT_FAULT = ("cudaErrorInsufficientDriver", "cudaErrorStubLibrary", "cudaErrorSystemDriverMismatch")


class CudaPython(Cuda):
    """The runtime API works on the primary context, made by the first call; per thread it only wants the GPU named.

    Raises:
        BackendError: No driver, or no GPU.
    """

    name = "cuda-python"
    has_graphs = True

    def __init__(self, index: int = 0) -> None:
        from cuda.bindings import runtime

        self._rt: Any = runtime
        self._index = index
        try:
            status, count = runtime.cudaGetDeviceCount()
        except RuntimeError as error:  # bindings before 13 raise where they find no libcuda, later ones return a status
            raise no_driver(str(error)) from error
        if status.name in _DRIVER_IS_AT_FAULT:
            raise self._driver_error(status)
        if status.name not in ("cudaSuccess", "cudaErrorNoDevice"):
            raise does_not_start(self._text(status))
        if (count or 0) <= index:
            raise no_device(count or 0)
        super().__init__()

    def _attach(self) -> None:
        self._call("cudaSetDevice", self._index)

    def _detach(self) -> None:
        pass  # the runtime API has one context per GPU, and nothing to pop

    def _release(self) -> None:
        pass  # the primary context is the process's: others may be using it

    def _device_info(self) -> Gpu:
        properties = self._call("cudaGetDeviceProperties", self._index)
        version = self._call("cudaDriverGetVersion")
        return Gpu(
            name=properties.name.decode(),
            compute_capability=(properties.major, properties.minor),
            memory_bytes=properties.totalGlobalMem,
            is_integrated=bool(properties.integrated),
            driver=(version // 1000, version % 1000 // 10),
        )

    def _mem_info(self) -> tuple[int, int]:
        free, total = self._call("cudaMemGetInfo")
        return int(free), int(total)

    def _malloc(self, nbytes: int) -> Buffer:
        pointer = int(self._call("cudaMalloc", nbytes, asked=(nbytes, "the GPU's memory")))
        return Buffer(pointer, pointer, nbytes)

    def _pinned(self, nbytes: int) -> Buffer:
        pointer = int(self._call("cudaHostAlloc", nbytes, 0, asked=(nbytes, "page-locked memory")))
        return Buffer(pointer, pointer, nbytes, _host_view(pointer, nbytes))

    def _mapped(self, nbytes: int) -> Buffer:
        host = int(self._call("cudaHostAlloc", nbytes, _MAPPED, asked=(nbytes, "page-locked memory")))
        try:
            device = int(self._call("cudaHostGetDevicePointer", host, 0))
        except DeviceError:
            self._rt.cudaFreeHost(host)
            raise
        return Buffer(host, device, nbytes, _host_view(host, nbytes))

    def _stream(self) -> Stream:
        native = self._call("cudaStreamCreateWithFlags", _NON_BLOCKING)
        return Stream(native, int(native))

    def _event(self) -> Event:
        return Event(self._call("cudaEventCreate"))

    def _destroy(self, resource: Any) -> None:
        if isinstance(resource, Buffer):
            self._call("cudaFree" if resource.host is None else "cudaFreeHost", resource.native)
            resource.host = None
        elif isinstance(resource, Stream):
            self._call("cudaStreamDestroy", resource.native)
        elif isinstance(resource, Event):
            self._call("cudaEventDestroy", resource.native)
        else:
            self._call("cudaGraphExecDestroy", resource.native)

    def _copy(self, device: Buffer, host: Buffer | NDArray[Any], stream: Stream, *, to_device: bool) -> None:
        address = host.native if isinstance(host, Buffer) else host.ctypes.data
        kinds = self._rt.cudaMemcpyKind
        if to_device:
            kind = kinds.cudaMemcpyHostToDevice
            self._call("cudaMemcpyAsync", device.pointer, address, host.nbytes, kind, stream.native)
        else:
            kind = kinds.cudaMemcpyDeviceToHost
            self._call("cudaMemcpyAsync", address, device.pointer, host.nbytes, kind, stream.native)

    def _synchronise(self, stream: Stream | None) -> None:
        if stream is None:
            self._call("cudaDeviceSynchronize")
        else:
            self._call("cudaStreamSynchronize", stream.native)

    def _record(self, event: Event, stream: Stream) -> None:
        self._call("cudaEventRecord", event.native, stream.native)

    def _elapsed_ms(self, first: Event, second: Event) -> float:
        return float(self._call("cudaEventElapsedTime", first.native, second.native))

    def _capture(self, stream: Stream, work: Callable[[], None]) -> Graph:
        # thread-local: what other threads of the program do meanwhile neither breaks the recording nor gets into it
        mode = self._rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream.native, mode)
        try:
            work()
        except BaseException:
            status, graph = self._rt.cudaStreamEndCapture(stream.native)  # back to an ordinary stream, whatever it says
            if status == self._rt.cudaError_t.cudaSuccess:
                self._rt.cudaGraphDestroy(graph)
            self._rt.cudaGetLastError()
            raise
        graph = self._call("cudaStreamEndCapture", stream.native)
        try:
            return Graph(self._call("cudaGraphInstantiate", graph, 0))
        finally:
            self._rt.cudaGraphDestroy(graph)

    def _launch(self, graph: Graph, stream: Stream) -> None:
        self._call("cudaGraphLaunch", graph.native, stream.native)

    def _call(self, function: str, *args: Any, asked: tuple[int, str] | None = None) -> Any:
        status, *values = getattr(self._rt, function)(*args)
        if status != self._rt.cudaError_t.cudaSuccess:
            self._rt.cudaGetLastError()  # or a later, innocent call would be blamed for it
            if asked and status == self._rt.cudaError_t.cudaErrorMemoryAllocation:
                raise out_of_memory(*asked)
            raise DeviceError(f"{function} failed: {self._text(status)}", hint="`nvidia-smi` or `dmesg` may say why")
        return values[0] if len(values) == 1 else values

    def _driver_error(self, status: Any) -> BackendError:
        driver, runtime = (self._rt.cudaDriverGetVersion()[1] or 0, self._rt.cudaRuntimeGetVersion()[1] or 0)
        if driver == 0:
            return no_driver(self._text(status))
        return BackendError(
            f"the NVIDIA driver serves CUDA up to {_dotted(driver)}, this cuda-python is for {_dotted(runtime)}",
            hint=f"update the driver, or pip install 'cuda-bindings<{driver // 1000 + 1}'",
        )

    def _text(self, status: Any) -> str:
        _, text = self._rt.cudaGetErrorString(status)
        return f"{text.decode()} ({status.name})"


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _host_view(pointer: int, nbytes: int) -> NDArray[np.uint8]:
    return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(pointer))
