"""What every CUDA provider offers, and the rules that hold for all: one thread at a time, nothing after closing, no leaks."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, ClassVar, TypeVar

from numpy.typing import NDArray

from edgesod.errors import BackendError, DeviceError
from edgesod.manifest import Gpu
from edgesod.runtime.cuda.at_exit import close_at_exit, forget, quietly
from edgesod.runtime.cuda.resources import Buffer, Event, Graph, Resource, Stream

_R = TypeVar("_R", bound=Resource)


class Cuda(ABC):
    """The primary context of one GPU, the one that TensorRT, torch and the CUDA runtime share.

    A thread owns it within ``with cuda.bound():``; another one waits there until it is free. Every operation belongs in
    such a block. ``with open_cuda() as cuda:`` is one, and closes at its end. Whoever opens it closes it; what it gave out
    and nobody freed goes with it, also when the program ends.

    Attributes:
        name: ``cuda-python``, ``pycuda`` or ``memory``.
        has_graphs: Whether :meth:`capture` works.
        lock: What :meth:`bound` and :meth:`close` hold; the same thread may take it again.
    """

    name: ClassVar[str]
    has_graphs: ClassVar[bool]

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._owner: int | None = None
        self._resources: dict[int, Resource] = {}
        self._before_close: list[Callable[[], None]] = []
        self._is_closed = False
        close_at_exit(self)

    # -- ownership ---------------------------------------------------------------------------------------------------

    @contextmanager
    def bound(self) -> Iterator[None]:
        """Make the calling thread the owner for the block; waits while another one is.

        Raises:
            DeviceError: It is closed.
        """
        with self.lock:
            if self._is_closed:
                raise _closed()
            if self._owner is not None:  # the lock let us in, so it is this thread, further in
                yield
                return
            self._attach()
            self._owner = threading.get_ident()
            try:
                yield
            finally:
                self._owner = None
                if not self._is_closed:
                    self._detach()

    def before_close(self, function: Callable[[], None]) -> None:
        """Have ``function`` called, by the owner, when this closes and before anything is freed."""
        self._before_close.append(function)

    def close(self) -> None:
        """Free everything that is left and let go of the context; safe to call twice, and from any thread.

        Nothing is left behind even where freeing fails, as it does after a GPU was lost.
        """
        with self.lock:
            if self._is_closed:
                return
            was_bound = is_attached = self._owner is not None
            if not was_bound:
                is_attached = self._attach_or_not()
                self._owner = threading.get_ident()
            for function in reversed(self._before_close):
                quietly(function)
            for resource in _by_dependence(list(self._resources.values())):
                quietly(self._destroy, resource)
            self._resources.clear()
            self._before_close.clear()
            self._is_closed = True
            if is_attached:  # or somebody else's context would be taken off the thread
                quietly(self._detach)
            quietly(self._release)
            if not was_bound:
                self._owner = None
            forget(self)

    def _attach_or_not(self) -> bool:
        """Try twice, because a lost GPU cannot be bound and is let go of all the same, but a busy one can be a moment later."""
        for _ in range(2):
            with suppress(DeviceError):
                self._attach()
                return True
        return False

    def __enter__(self) -> Cuda:
        self._block = self.bound()
        try:
            self._block.__enter__()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
        self._block.__exit__(kind, error, trace)

    # -- operations --------------------------------------------------------------------------------------------------

    def device_info(self) -> Gpu:
        """Describe the GPU."""
        self._require_owner()
        return self._device_info()

    def mem_info(self) -> tuple[int, int]:
        """Return free and total bytes of the GPU's memory."""
        self._require_owner()
        return self._mem_info()

    def malloc(self, nbytes: int) -> Buffer:
        """Allocate memory of the GPU."""
        self._require_owner()
        return self._keep(self._malloc(nbytes))

    def pinned(self, nbytes: int) -> Buffer:
        """Allocate page-locked memory of the host, from and to which copies run beside other work."""
        self._require_owner()
        return self._keep(self._pinned(nbytes))

    def mapped(self, nbytes: int) -> Buffer:
        """Allocate page-locked memory of the host that the GPU reads and writes in place.

        For GPUs that share the host's memory, where a copy is waste; on others every access crosses the bus.
        """
        self._require_owner()
        return self._keep(self._mapped(nbytes))

    def stream(self) -> Stream:
        """Make a stream that does not wait for the default one."""
        self._require_owner()
        return self._keep(self._stream())

    def event(self) -> Event:
        """Make an event that takes the time."""
        self._require_owner()
        return self._keep(self._event())

    def free(self, *resources: Resource) -> None:
        """Free buffers, streams, events and graphs, of which none may be in use.

        Raises:
            DeviceError: One of them is not live: it was freed before, or comes from elsewhere.
        """
        self._require_owner()
        for resource in resources:
            self._require_live(resource)
            del self._resources[id(resource)]
            self._destroy(resource)

    def discard(self, *resources: Resource) -> None:
        """Free what of some resources is live, as :meth:`close` does: users before what they use, whatever fails."""
        self._require_owner()
        for resource in _by_dependence([resource for resource in resources if id(resource) in self._resources]):
            quietly(self.free, resource)

    def h2d_async(self, target: Buffer, source: Buffer | NDArray[Any], stream: Stream) -> None:
        """Copy from the host to ``target``, all of ``source``, in stream order.

        Args:
            target: Memory of the GPU.
            source: A pinned buffer; or an array, C-contiguous and of any dtype, from which the copy is not asynchronous.
            stream: The stream.

        Raises:
            DeviceError: The source is larger than the target, or one of them is not live.
        """
        self._require_owner()
        self._require_live(target, stream)
        self._copy(target, self._host_side(source, target.nbytes), stream, to_device=True)

    def d2h_async(self, target: Buffer | NDArray[Any], source: Buffer, stream: Stream) -> None:
        """Copy ``source`` from the GPU to the host, as much as ``target`` holds, in stream order.

        Args:
            target: A pinned buffer; or an array, C-contiguous and of any dtype, to which the copy is not asynchronous.
            source: Memory of the GPU.
            stream: The stream.

        Raises:
            DeviceError: The target is larger than the source, or one of them is not live.
        """
        self._require_owner()
        self._require_live(source, stream)
        self._copy(source, self._host_side(target, source.nbytes), stream, to_device=False)

    def synchronise(self, stream: Stream | None = None) -> None:
        """Wait until everything in ``stream``, or on the whole GPU, is done."""
        self._require_owner()
        if stream is not None:
            self._require_live(stream)
        self._synchronise(stream)

    def record(self, event: Event, stream: Stream) -> None:
        """Have ``event`` happen when ``stream`` gets there."""
        self._require_owner()
        self._require_live(event, stream)
        self._record(event, stream)

    def elapsed_ms(self, first: Event, second: Event) -> float:
        """Return the milliseconds between two events that have happened."""
        self._require_owner()
        self._require_live(first, second)
        return self._elapsed_ms(first, second)

    def capture(self, stream: Stream, work: Callable[[], None]) -> Graph:
        """Record what ``work`` puts into ``stream``, without running it.

        Raises:
            BackendError: The provider has no graphs.
            DeviceError: ``work`` does something that cannot be recorded.
        """
        self._require_owner()
        self._require_live(stream)
        if not self.has_graphs:
            raise BackendError(f"{self.name} has no CUDA graphs", hint="pip install cuda-python")
        return self._keep(self._capture(stream, work))

    def launch(self, graph: Graph, stream: Stream) -> None:
        """Run what was recorded."""
        self._require_owner()
        self._require_live(graph, stream)
        self._launch(graph, stream)

    # -- rules -------------------------------------------------------------------------------------------------------

    def _require_owner(self) -> None:
        if self._is_closed:
            raise _closed()
        if self._owner != threading.get_ident():
            raise DeviceError(
                "the GPU was used by a thread that does not own it", hint="do it within `with cuda.bound():`, in that thread"
            )

    def _require_live(self, *resources: Resource) -> None:
        for resource in resources:
            if id(resource) not in self._resources:
                raise DeviceError(f"this {type(resource).__name__.lower()} was freed, or belongs to another context")

    def _keep(self, resource: _R) -> _R:
        self._resources[id(resource)] = resource
        return resource

    def _host_side(self, side: Buffer | NDArray[Any], nbytes: int) -> Buffer | NDArray[Any]:
        if isinstance(side, Buffer):
            self._require_live(side)
            if side.host is None:
                raise DeviceError("the host's side of a copy is memory of the GPU")
        elif not side.flags.c_contiguous:
            raise DeviceError("the host's side of a copy is an array that is not C-contiguous")
        if side.nbytes > nbytes:
            raise DeviceError(f"a copy of {side.nbytes} bytes does not fit into, or is not in, a buffer of {nbytes}")
        return side

    # -- what a provider implements ----------------------------------------------------------------------------------

    @abstractmethod
    def _attach(self) -> None:
        """Make the context current in the calling thread."""

    @abstractmethod
    def _detach(self) -> None:
        """Undo ``_attach``."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of the context, after the last ``_detach``."""

    @abstractmethod
    def _device_info(self) -> Gpu: ...

    @abstractmethod
    def _mem_info(self) -> tuple[int, int]: ...

    @abstractmethod
    def _malloc(self, nbytes: int) -> Buffer: ...

    @abstractmethod
    def _pinned(self, nbytes: int) -> Buffer: ...

    @abstractmethod
    def _mapped(self, nbytes: int) -> Buffer: ...

    @abstractmethod
    def _stream(self) -> Stream: ...

    @abstractmethod
    def _event(self) -> Event: ...

    @abstractmethod
    def _destroy(self, resource: Resource) -> None: ...

    @abstractmethod
    def _copy(self, device: Buffer, host: Buffer | NDArray[Any], stream: Stream, *, to_device: bool) -> None:
        """Copy ``host.nbytes`` bytes between two sides that were checked."""

    @abstractmethod
    def _synchronise(self, stream: Stream | None) -> None: ...

    @abstractmethod
    def _record(self, event: Event, stream: Stream) -> None: ...

    @abstractmethod
    def _elapsed_ms(self, first: Event, second: Event) -> float: ...

    @abstractmethod
    def _capture(self, stream: Stream, work: Callable[[], None]) -> Graph: ...

    @abstractmethod
    def _launch(self, graph: Graph, stream: Stream) -> None: ...


def _by_dependence(resources: Iterable[Resource]) -> list[Resource]:
    """Order resources so that whatever uses another comes before it."""
    kinds = (Graph, Event, Buffer, Stream)
    return [resource for kind in kinds for resource in resources if isinstance(resource, kind)]


def _closed() -> DeviceError:
    return DeviceError("this CUDA context is closed", hint="open another one")
