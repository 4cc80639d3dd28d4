"""CUDA in the host's memory, for tests and rehearsals: it computes nothing, keeps CUDA's rules strictly, and fails on demand.

Errors here that CUDA itself would let pass, or punish with garbage: use after free, copies on a closed stream, host memory
touched while a copy or kernel that uses it is under way, anything without a current context. What is live is counted by the
simulated driver, not by the class under test.
"""

from __future__ import annotations

import ctypes
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgesod.errors import DeviceError
from edgesod.manifest import Gpu
from edgesod.runtime.cuda.base import Cuda
from edgesod.runtime.cuda.failures import no_device, out_of_memory
from edgesod.runtime.cuda.resources import Buffer, Event, Graph, Stream

Fault = Literal["out of memory", "lost"]

GPU = Gpu(name="in-memory GPU", compute_capability=(8, 7), memory_bytes=8 << 30, is_integrated=False, driver=(12, 6))

_COPY_GB_S = 10.0
_KERNEL_MS = 1.0


@dataclass
class _Allocation:
    memory: NDArray[np.uint8]
    is_device: bool
    busy_on: int = 0
    """Handle of the stream whose work uses it, until that is synchronised."""


@dataclass
class _Work:
    """A piece of work in a stream: what it does, how long a GPU would take, and the memory it uses."""

    run: Callable[[], None]
    ms: float
    uses: tuple[int, ...]


@dataclass
class _StreamState:
    clock_ms: float = 0.0
    recording: list[_Work] | None = None


@dataclass
class Driver:
    """A simulated driver with one process's worth of state.

    Attributes:
        gpus: What it finds; empty for a machine without, and where ``CUDA_VISIBLE_DEVICES`` hides every GPU.
        fail_at: The call, counted from 1, that fails; ``None`` for none.
        fault: How: out of memory, once; or a lost GPU, which makes every later call fail as well. Freeing frees even then.
        calls: Number of calls so far.
    """

    gpus: tuple[Gpu, ...] = field(default_factory=lambda: _visible())
    fail_at: int | None = None
    fault: Fault = "out of memory"
    calls: int = 0
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(0x1000))
    _memory: dict[int, _Allocation] = field(default_factory=dict)
    _streams: dict[int, _StreamState] = field(default_factory=dict)
    _events: dict[int, float | None] = field(default_factory=dict)
    _graphs: dict[int, list[_Work]] = field(default_factory=dict)
    _contexts: int = 0
    _is_current: bool = False
    _is_lost: bool = False

    def live(self) -> dict[str, int]:
        """Return how many of each are alive."""
        return {
            "buffers": len(self._memory),
            "streams": len(self._streams),
            "events": len(self._events),
            "graphs": len(self._graphs),
            "contexts": self._contexts,
        }

    def _call(self, nbytes: int = 0) -> None:
        self.calls += 1
        if self.calls == self.fail_at:
            if self.fault == "out of memory":
                raise out_of_memory(nbytes, "simulated memory")
            self._is_lost = True
        if self._is_lost:
            raise DeviceError("the GPU was lost (simulated)", hint="`nvidia-smi` or `dmesg` may say why")

    def _require(self, what: str, there: object) -> None:
        if not (self._is_current or self._is_lost):  # with a lost GPU there is none to be had, and freeing goes on
            raise DeviceError("no context is current")
        if not there:
            raise DeviceError(f"this {what} is not live: it was freed, or never was")

    def _touch(self, pointer: int) -> NDArray[np.uint8]:
        """Return memory as the host sees it, if it may look now."""
        allocation = self._memory.get(pointer)
        if allocation is None:
            raise DeviceError("this buffer is not live: it was freed")
        if allocation.busy_on:
            raise DeviceError("host memory was touched while work that uses it is under way", hint="synchronise first")
        return allocation.memory

    def _put(self, handle: int, work: _Work) -> None:
        """Do a piece of work in stream order, or record it."""
        self._require("stream", handle in self._streams)
        for pointer in work.uses:
            self._require("buffer", pointer in self._memory)
        stream = self._streams[handle]
        if stream.recording is not None:
            stream.recording.append(work)
            return
        work.run()
        stream.clock_ms += work.ms
        for pointer in work.uses:
            self._memory[pointer].busy_on = handle

    def _finish(self, handle: int | None) -> None:
        for allocation in self._memory.values():
            if handle in (None, allocation.busy_on):
                allocation.busy_on = 0


class MemoryCuda(Cuda):
    """The simulated driver's first GPU.

    Raises:
        BackendError: The driver is told to find none.
    """

    name = "memory"
    has_graphs = True

    def __init__(self, index: int = 0) -> None:
        self._driver = driver()
        self._driver._call()
        if len(self._driver.gpus) <= index:
            raise no_device(len(self._driver.gpus))
        self._index = index
        self._driver._contexts += 1
        super().__init__()

    def _attach(self) -> None:
        self._driver._is_current = True
        try:
            self._driver._call()
        except DeviceError:
            self._driver._is_current = False
            raise

    def _detach(self) -> None:
        self._driver._is_current = False
        self._driver._call()

    def _release(self) -> None:
        self._driver._contexts -= 1

    def _device_info(self) -> Gpu:
        self._driver._call()
        return self._driver.gpus[self._index]

    def _mem_info(self) -> tuple[int, int]:
        self._driver._call()
        total = self._driver.gpus[self._index].memory_bytes
        return total - sum(a.memory.nbytes for a in self._driver._memory.values() if a.is_device), total

    def _malloc(self, nbytes: int) -> Buffer:
        pointer = self._allocate(nbytes, is_device=True)
        return Buffer(pointer, pointer, nbytes)

    def _pinned(self, nbytes: int) -> Buffer:
        pointer = self._allocate(nbytes, is_device=False)
        return _HostBuffer(pointer, pointer, nbytes, self._driver._memory[pointer].memory, self._driver)

    def _mapped(self, nbytes: int) -> Buffer:
        return self._pinned(nbytes)

    def _allocate(self, nbytes: int, *, is_device: bool) -> int:
        self._driver._require("context", there=True)
        self._driver._call(nbytes)
        memory = np.full(max(nbytes, 1), 0xCD, np.uint8)  # no zeroes that a forgotten copy would pass for
        pointer = memory.ctypes.data
        self._driver._memory[pointer] = _Allocation(memory[:nbytes], is_device)
        return int(pointer)

    def _stream(self) -> Stream:
        self._driver._require("context", there=True)
        self._driver._call()
        handle = next(self._driver._numbers)
        self._driver._streams[handle] = _StreamState()
        return Stream(handle, handle)

    def _event(self) -> Event:
        self._driver._require("context", there=True)
        self._driver._call()
        number = next(self._driver._numbers)
        self._driver._events[number] = None
        return Event(number)

    def _destroy(self, resource: Any) -> None:
        kept: dict[int, Any]
        if isinstance(resource, Buffer):
            kept = self._driver._memory
            busy = resource.native in kept and kept[resource.native].busy_on
            if busy and not self._driver._is_lost:
                self._driver._finish(busy)  # cudaFree waits for the GPU
        elif isinstance(resource, Stream):
            kept = self._driver._streams
        elif isinstance(resource, Event):
            kept = self._driver._events
        else:
            kept = self._driver._graphs
        self._driver._require(type(resource).__name__.lower(), resource.native in kept)
        del kept[resource.native]
        self._driver._call()

    def _copy(self, device: Buffer, host: Buffer | NDArray[Any], stream: Stream, *, to_device: bool) -> None:
        self._driver._call()
        nbytes = host.nbytes
        host_pointer = host.native if isinstance(host, Buffer) else host.ctypes.data
        target, source = (device.pointer, host_pointer) if to_device else (host_pointer, device.pointer)
        uses = (device.pointer, host_pointer) if isinstance(host, Buffer) else (device.pointer,)
        self._driver._put(
            stream.handle,
            _Work(lambda: _move(target, source, nbytes), nbytes / (_COPY_GB_S * 1e6), uses),
        )

    def _synchronise(self, stream: Stream | None) -> None:
        self._driver._call()
        if stream is not None:
            self._driver._require("stream", stream.handle in self._driver._streams)
            if self._driver._streams[stream.handle].recording is not None:
                raise DeviceError("a stream that is being captured cannot be synchronised")
        self._driver._finish(None if stream is None else stream.handle)

    def _record(self, event: Event, stream: Stream) -> None:
        self._driver._call()
        self._driver._require("event", event.native in self._driver._events)
        self._driver._require("stream", stream.handle in self._driver._streams)
        self._driver._events[event.native] = self._driver._streams[stream.handle].clock_ms

    def _elapsed_ms(self, first: Event, second: Event) -> float:
        self._driver._call()
        began, ended = self._driver._events[first.native], self._driver._events[second.native]
        if began is None or ended is None:
            raise DeviceError("an event that was never recorded has no time")
        return ended - began

    def _capture(self, stream: Stream, work: Callable[[], None]) -> Graph:
        self._driver._call()
        state = self._driver._streams[stream.handle]
        recorded: list[_Work] = []
        state.recording = recorded
        try:
            work()
        finally:
            state.recording = None
        self._driver._call()
        number = next(self._driver._numbers)
        self._driver._graphs[number] = recorded
        return Graph(number)

    def _launch(self, graph: Graph, stream: Stream) -> None:
        self._driver._call()
        self._driver._require("graph", graph.native in self._driver._graphs)
        for work in self._driver._graphs[graph.native]:
            self._driver._put(stream.handle, work)


@dataclass(eq=False)
class _HostBuffer(Buffer):
    driver: Driver = field(default_factory=Driver)

    @property
    def array(self) -> NDArray[np.uint8]:
        return self.driver._touch(self.native)


def enqueue(
    stream: int,
    work: Callable[[], None],
    *,
    reads: Iterable[int] = (),
    writes: Iterable[int] = (),
    ms: float = _KERNEL_MS,
) -> None:
    """Put a stand-in for a kernel into a stream; for a simulated TensorRT, say.

    Args:
        stream: Handle of a live stream.
        work: Reads and writes memory at its true addresses. Run in order; while a graph is captured it is recorded, and run
            at each launch.
        reads: Addresses of the buffers it reads.
        writes: Addresses of the buffers it writes.
        ms: How long a GPU would take, for the events around it.

    Raises:
        DeviceError: The stream or a buffer is not live, or the simulated GPU fails.
    """
    _current._call()
    _current._put(stream, _Work(work, ms, (*reads, *writes)))


def driver() -> Driver:
    """Return the simulated driver in use."""
    return _current


@contextmanager
def simulated(**settings: Any) -> Iterator[Driver]:
    """Use a fresh :class:`Driver` with ``settings`` for the block."""
    global _current
    before, _current = _current, Driver(**settings)
    try:
        yield _current
    finally:
        _current = before


def _visible() -> tuple[Gpu, ...]:
    return () if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") else (GPU,)


def _move(target: int, source: int, nbytes: int) -> None:
    ctypes.memmove(target, source, nbytes)


_current = Driver()
