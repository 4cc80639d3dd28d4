"""Stand-ins for ``cuda.bindings.runtime`` and ``pycuda.driver``: one GPU in the host's memory, to run the real providers on.

They have what the providers call and no more, count what is alive, and refuse what the real ones refuse. They differ from the
in-memory provider in that the code between them and a test is the one that talks to a GPU elsewhere.
"""

from __future__ import annotations

import ctypes
import enum
import sys
import threading
from collections import Counter
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgesod.runtime.cuda import pycuda_provider

TOO_MUCH = 1 << 40


class _Heap:
    """Memory at true addresses, and what else is alive."""

    def __init__(self) -> None:
        self.kept: dict[int, np.ndarray] = {}
        self.live: Counter[str] = Counter()

    def get(self, what: str, nbytes: int = 1) -> int:
        memory = np.full(max(nbytes, 1), 0xCD, np.uint8)
        self.kept[memory.ctypes.data] = memory
        self.live[what] += 1
        return memory.ctypes.data

    def drop(self, what: str, address: int) -> None:
        del self.kept[address]
        self.live[what] -= 1


class _Status(enum.IntEnum):
    cudaSuccess = 0  # noqa: N815
    cudaErrorInvalidValue = 1  # noqa: N815
    cudaErrorMemoryAllocation = 2  # noqa: N815
    cudaErrorInsufficientDriver = 35  # noqa: N815
    cudaErrorNoDevice = 100  # noqa: N815


class RuntimeApi(ModuleType):
    """``cuda.bindings.runtime``: every function returns a status and values. ``fails`` maps a function's name to a status."""

    cudaError_t = _Status  # noqa: N815
    cudaMemcpyKind = enum.IntEnum("cudaMemcpyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2})  # noqa: N815
    cudaStreamCaptureMode = enum.IntEnum("cudaStreamCaptureMode", {"cudaStreamCaptureModeThreadLocal": 1})  # noqa: N815

    def __init__(self, gpus: int = 1, driver: int = 12060) -> None:
        super().__init__("cuda.bindings.runtime")
        self.heap, self.gpus, self.driver = _Heap(), gpus, driver
        self.fails: dict[str, _Status] = {}
        self.last = _Status(0)
        self.recording: list[Any] | None = None
        self.graphs: dict[int, list[Any]] = {}

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        fails = super().__getattribute__("__dict__").get("fails", {})
        if name not in fails:
            return value
        nones = 1 if name in ("cudaGetDeviceCount", "cudaMalloc", "cudaHostAlloc", "cudaHostGetDevicePointer") else 0

        def fail(*_: Any) -> Any:
            self.last = fails[name]
            return (self.last, *[None] * nones)

        return fail

    def cudaGetDeviceCount(self) -> Any:  # noqa: N802
        return (_Status(0), self.gpus) if self.gpus else (_Status.cudaErrorNoDevice, None)

    def cudaDriverGetVersion(self) -> Any:  # noqa: N802
        return _Status(0), self.driver

    def cudaRuntimeGetVersion(self) -> Any:  # noqa: N802
        return _Status(0), 13050

    def cudaGetErrorString(self, error: Any) -> Any:  # noqa: N802
        return _Status(0), f"the text of {int(error)}".encode()

    def cudaGetLastError(self) -> Any:  # noqa: N802
        last, self.last = self.last, _Status(0)
        return (last,)

    def cudaSetDevice(self, device: int) -> Any:  # noqa: N802
        return (_Status(0),)

    def cudaGetDeviceProperties(self, device: int) -> Any:  # noqa: N802
        return _Status(0), SimpleNamespace(name=b"Stand-in", major=8, minor=7, totalGlobalMem=1 << 33, integrated=1)

    def cudaMemGetInfo(self) -> Any:  # noqa: N802
        return _Status(0), 1 << 32, 1 << 33

    def cudaMalloc(self, size: int) -> Any:  # noqa: N802
        return self._allocate("device", size)

    def cudaHostAlloc(self, size: int, flags: int) -> Any:  # noqa: N802
        return self._allocate("host", size)

    def _allocate(self, what: str, size: int) -> Any:
        return (_Status.cudaErrorMemoryAllocation, None) if size >= TOO_MUCH else (_Status(0), self.heap.get(what, size))

    def cudaHostGetDevicePointer(self, p_host: int, flags: int) -> Any:  # noqa: N802
        return _Status(0), p_host

    def cudaFree(self, dev_ptr: int) -> Any:  # noqa: N802
        self.heap.drop("device", dev_ptr)
        return (_Status(0),)

    def cudaFreeHost(self, ptr: int) -> Any:  # noqa: N802
        self.heap.drop("host", ptr)
        return (_Status(0),)

    def cudaStreamCreateWithFlags(self, flags: int) -> Any:  # noqa: N802
        return _Status(0 if flags == 1 else 1), self.heap.get("stream")

    def cudaStreamDestroy(self, stream: int) -> Any:  # noqa: N802
        self.heap.drop("stream", stream)
        return (_Status(0),)

    def cudaStreamSynchronize(self, stream: int) -> Any:  # noqa: N802
        return (_Status(0),)

    def cudaDeviceSynchronize(self) -> Any:  # noqa: N802
        return (_Status(0),)

    def cudaEventCreate(self) -> Any:  # noqa: N802
        return _Status(0), self.heap.get("event")

    def cudaEventDestroy(self, event: int) -> Any:  # noqa: N802
        self.heap.drop("event", event)
        return (_Status(0),)

    def cudaEventRecord(self, event: int, stream: int) -> Any:  # noqa: N802
        return (_Status(0),)

    def cudaEventElapsedTime(self, start: int, end: int) -> Any:  # noqa: N802
        return _Status(0), 1.5

    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: Any, stream: int) -> Any:  # noqa: N802
        device, host = (dst, src) if int(kind) == 1 else (src, dst)
        assert device in self.heap.kept
        assert device != host
        assert stream in self.heap.kept
        self._do(lambda: ctypes.memmove(dst, src, count))
        return (_Status(0),)

    def _do(self, work: Any) -> None:
        if self.recording is None:
            work()
        else:
            self.recording.append(work)

    def cudaStreamBeginCapture(self, stream: int, mode: Any) -> Any:  # noqa: N802
        self.recording = []
        return (_Status(0),)

    def cudaStreamEndCapture(self, stream: int) -> Any:  # noqa: N802
        graph = self.heap.get("graph")
        self.graphs[graph], self.recording = self.recording or [], None
        return _Status(0), graph

    def cudaGraphDestroy(self, graph: int) -> Any:  # noqa: N802
        self.heap.drop("graph", graph)
        return (_Status(0),)

    def cudaGraphInstantiate(self, graph: int, flags: int) -> Any:  # noqa: N802
        made = self.heap.get("graph exec")
        self.graphs[made] = self.graphs[graph]
        return _Status(0), made

    def cudaGraphExecDestroy(self, graph_exec: int) -> Any:  # noqa: N802
        self.heap.drop("graph exec", graph_exec)
        return (_Status(0),)

    def cudaGraphLaunch(self, graph_exec: int, stream: int) -> Any:  # noqa: N802
        for work in self.graphs[graph_exec]:
            work()
        return (_Status(0),)

    def alive(self) -> Counter[str]:
        """Return how many of each are alive."""
        return +self.heap.live


class PyCudaDriver(ModuleType):
    """``pycuda.driver``, with a stack of contexts for each thread."""

    class Error(Exception):
        pass

    class MemoryError(Error):
        pass

    class device_attribute:  # noqa: N801
        INTEGRATED = 18

    class host_alloc_flags:  # noqa: N801
        DEVICEMAP = 2

    def __init__(self, gpus: int = 1) -> None:
        super().__init__("pycuda.driver")
        self.heap, self.gpus, self.stacks, self.retained = _Heap(), gpus, threading.local(), 0
        driver = self

        class _Owned:
            def __init__(self, what: str, nbytes: int = 1) -> None:
                driver._need_context()
                self._what, self._address = what, driver.heap.get(what, nbytes)

            def free(self) -> None:
                driver._need_context()
                driver.heap.drop(self._what, self._address)
                self._what = ""

            def __int__(self) -> int:
                return self._address

            def get_device_pointer(self) -> int:
                return self._address

        class Stream(_Owned):
            def __init__(self, flags: int = 0) -> None:
                super().__init__("stream")
                assert flags == 1, "a stream that waits for the default one"
                self.handle = self._address

            def synchronize(self) -> None:
                driver._need_context()

            def __del__(self) -> None:
                self.free()

        class Event(_Owned):
            def __init__(self) -> None:
                super().__init__("event")

            def record(self, stream: Stream) -> None:
                driver._need_context()

            def time_till(self, other: Any) -> float:
                return 1.5

            def __del__(self) -> None:
                self.free()

        class Context:
            def push(self) -> None:
                driver._stack().append(self)

            def detach(self) -> None:
                driver.retained -= 1

            @staticmethod
            def pop() -> None:
                driver._need_context()
                driver._stack().pop()

            @staticmethod
            def synchronize() -> None:
                driver._need_context()

        class Device:
            @staticmethod
            def count() -> int:
                return driver.gpus

            def __init__(self, index: int) -> None:
                assert index < driver.gpus

            def name(self) -> str:
                return "Stand-in"

            def compute_capability(self) -> tuple[int, int]:
                return 8, 7

            def total_memory(self) -> int:
                return 1 << 33

            def get_attribute(self, attribute: int) -> int:
                return int(attribute == 18)

            def retain_primary_context(self) -> Context:
                driver.retained += 1
                return Context()

        self._owned, self.Stream, self.Event, self.Context, self.Device = _Owned, Stream, Event, Context, Device

    def _stack(self) -> list[Any]:
        if not hasattr(self.stacks, "stack"):
            self.stacks.stack = []
        stack: list[Any] = self.stacks.stack
        return stack

    def _need_context(self) -> None:
        if not self._stack():
            raise self.Error("invalid device context")

    def init(self) -> None:
        if not self.gpus:
            raise self.Error("cuInit failed: no CUDA-capable device is detected")

    def get_driver_version(self) -> int:
        return 12060

    def mem_get_info(self) -> tuple[int, int]:
        self._need_context()
        return 1 << 32, 1 << 33

    def mem_alloc(self, nbytes: int) -> Any:
        if nbytes >= TOO_MUCH:
            raise self.MemoryError("cuMemAlloc failed: out of memory")
        return self._owned("device", nbytes)

    def pagelocked_empty(self, shape: int, dtype: str, mem_flags: int = 0) -> Any:
        if shape >= TOO_MUCH:
            raise self.MemoryError("cuMemHostAlloc failed: out of memory")
        owner = self._owned("host", shape)
        array = self.heap.kept[int(owner)][:shape].view(_Based)
        array.owner = owner
        return array

    def memcpy_htod_async(self, dest: int, src: np.ndarray, stream: Any) -> None:
        self._need_context()
        ctypes.memmove(dest, src.ctypes.data, src.nbytes)

    def memcpy_dtoh_async(self, dest: np.ndarray, src: int, stream: Any) -> None:
        self._need_context()
        ctypes.memmove(dest.ctypes.data, src, dest.nbytes)

    def alive(self) -> Counter[str]:
        """Return how many of each are alive."""
        return +self.heap.live


class _Based(np.ndarray):
    """An array whose ``base`` is what owns the page-locked memory, as pycuda's are."""

    owner: Any = None

    @property
    def base(self) -> Any:
        return self.owner


def install(monkeypatch: pytest.MonkeyPatch, stand_in: RuntimeApi | PyCudaDriver) -> None:
    """Have ``import`` find a stand-in where the real package would be."""
    names = stand_in.__name__.split(".")
    for k in range(1, len(names)):
        package = ModuleType(".".join(names[:k]))
        package.__path__ = []
        package.__spec__ = None
        setattr(package, names[k], stand_in)
        monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    monkeypatch.setattr("edgesod.runtime.cuda.select._is_installed", lambda name: True)
    pycuda_provider._primary_context.cache_clear()
