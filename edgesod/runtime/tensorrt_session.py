"""TensorRT on an NVIDIA GPU: named tensors, its own stream, memory allocated once, CUDA graphs where they can be had."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgesod.errors import BackendError, DeviceError, InputError
from edgesod.manifest import TensorRtBuild
from edgesod.runtime.cuda import Buffer, Cuda, Graph, Resource, Stream, open_cuda
from edgesod.runtime.cuda.tensors import DeviceTensor, device_tensor, is_device_tensor
from edgesod.runtime.session import Arrays, Session, check_arrays
from edgesod.runtime.tensorrt_engine import Engine
from edgesod.runtime.tensorrt_profile import LayerTime, time_layers
from edgesod.runtime.tensorrt_shared import SharedEngine
from edgesod.types import StageTimes, TensorSpec

if TYPE_CHECKING:
    import tensorrt as trt

NAME = "tensorrt"

Memory = Literal["auto", "pinned", "mapped"]
R = TypeVar("R", bound=Resource)


class TensorRtSession(Session):
    """Run an engine that TensorRT serialised.

    Everything it needs is allocated when it opens. :meth:`run` allocates only the arrays it gives away; :meth:`run_async`
    and :meth:`run_into` nothing. Written into :attr:`staging`, an input is not copied on the host either. Inputs may be
    tensors that lie in the GPU's memory. Further sessions on the same engine come from :meth:`fork`.

    Args:
        path: The engine file. A manifest beside it is compared with this machine before TensorRT gets to see the engine.
        memory: ``"pinned"``: page-locked memory, copied to the GPU and back. ``"mapped"``: memory that both use in place, for
            boards whose CPU and GPU share theirs. ``"auto"``: mapped where the GPU is integrated.
        graph: Record the network as a CUDA graph after the first run and replay it from then on, where that can be done.
        cuda: A GPU that is open, for what it is used with besides; it then belongs to the session and its forks.
        built: How the engine was built, where that was here, a moment ago, and it has no manifest yet.

    Attributes:
        cuda: The GPU, closed with the last session on the engine.
        memory: ``"pinned"`` or ``"mapped"``.
        graph_reason: Why the last run was not the replay of a graph; empty where it was.

    Raises:
        BackendError: No GPU, no driver, no CUDA package; TensorRT missing, too old, or refusing the engine.
        ManifestMismatch: The engine was made for another TensorRT or GPU.
        DeviceError: The GPU has too little memory, or fails.
        InputError: The file cannot be read.
    """

    def __init__(
        self,
        path: Path,
        *,
        memory: Memory = "auto",
        graph: bool = True,
        cuda: Cuda | None = None,
        built: TensorRtBuild | None = None,
    ) -> None:
        shared = SharedEngine(open_cuda() if cuda is None else cuda)  # before TensorRT: see require_tensorrt
        try:
            with shared.cuda.bound():
                shared.engine = Engine(path, shared.cuda, built)
        except BaseException:
            shared.cuda.close()
            raise
        self._open(shared, memory, graph)

    def fork(self) -> TensorRtSession:
        """Open another session on the same engine, with an execution context, a stream and memory of its own.

        The weights are on the GPU once. What two sessions were given by :meth:`run_async` overlaps there; threads take turns in
        giving it. Each is closed by itself, in any order; the engine goes with the last one.

        Raises:
            BackendError: The session is closed; or before TensorRT 10 the engine's batch is free, and one context has its
                profile.
            DeviceError: The GPU has too little memory, or fails.
        """
        self._require_open()
        other = TensorRtSession.__new__(TensorRtSession)
        other._open(self._shared, self.memory, self._asks_for_graph)
        return other

    def _open(self, shared: SharedEngine, memory: Memory, graph: bool) -> None:
        self._shared, self.cuda = shared, shared.cuda
        self._context: trt.IExecutionContext | None = None
        self._graph: Graph | None = None
        self._pending: _Pending | None = None
        self._times: StageTimes | None = None
        self._staging: dict[str, NDArray[Any]] = {}
        self._host: dict[str, Buffer] = {}
        self._device: dict[str, Buffer] = {}
        self._owned: list[Resource] = []
        self._addresses: dict[str, int] = {}
        self._asks_for_graph = self._wants_graph = graph
        self.graph_reason = "the first run is never a graph's" if graph else "not asked for"
        shared.join(self)
        try:
            with self.cuda.bound():
                self._allocate(memory)
        except BaseException:
            shared.leave(self)
            raise

    def _allocate(self, memory: Memory) -> None:
        self._context = self._engine.context()
        names = self._engine.names()
        inputs, outputs = ([self._engine.spec(self._context, name) for name in some] for some in names)
        super().__init__(NAME, inputs, outputs)
        self._gpu = self.cuda.device_info()
        is_mapped = memory == "mapped" or (memory == "auto" and self._gpu.is_integrated)
        self.memory: Memory = "mapped" if is_mapped else "pinned"
        for spec in (*inputs, *outputs):
            nbytes = _nbytes(spec)
            self._host[spec.name] = self._own(self.cuda.mapped(nbytes) if is_mapped else self.cuda.pinned(nbytes))
            self._device[spec.name] = self._host[spec.name] if is_mapped else self._own(self.cuda.malloc(nbytes))
        self._staging = {spec.name: _array(self._host[spec.name], spec) for spec in inputs}
        self._stream: Stream = self._own(self.cuda.stream())
        self._events = tuple(self._own(self.cuda.event()) for _ in range(4))
        self._set_addresses({name: buffer.pointer for name, buffer in self._device.items()})

    def _own(self, resource: R) -> R:
        self._owned.append(resource)
        return resource

    @property
    def _engine(self) -> Engine:
        assert self._shared.engine is not None  # a session that is open keeps it open
        return self._shared.engine

    @property
    def staging(self) -> Mapping[str, NDArray[Any]]:
        """The memory that inputs are sent from, by name. Not to be written to while a run is under way, nor after closing."""
        return MappingProxyType(self._staging)

    @property
    def facts(self) -> dict[str, str]:
        """GPU, CUDA provider, how memory is shared, and :attr:`graph_reason` as of the last run."""
        return {
            "gpu": self._gpu.text,
            "cuda_provider": self.cuda.name,
            "gpu_memory": self.memory,
            "graph_reason": self.graph_reason,
        }

    @property
    def times_ms(self) -> StageTimes:
        """Milliseconds of the last run by the GPU's clock: ``h2d``, ``compute``, ``d2h``; empty before the first one."""
        return dict(self._times or {})

    def run_async(self, feeds: Mapping[str, Any]) -> _Pending:
        """Start a run and return at once; one may be under way at a time.

        Args:
            feeds: One array per input, by name, of its exact shape and dtype, free to be changed when this returns; or a tensor
                in the GPU's memory (``__cuda_array_interface__`` or DLPack), which is read where it lies and has to stay as it
                is until the run was waited for.

        Returns:
            The run; ``wait()`` returns its outputs by name, in memory of the session's that lasts until the next run.

        Raises:
            BackendError: The session is closed, or the run before was not waited for.
            InputError: An input is missing or unknown, or has another shape or dtype.
            DeviceError: The GPU fails.
        """
        self._require_open()
        tensors = {name: feed for name, feed in feeds.items() if is_device_tensor(feed)}
        arrays = {name: feed for name, feed in feeds.items() if name not in tensors}
        if tensors:
            check_arrays("inputs", [spec for spec in self.inputs if spec.name not in tensors], arrays)
        else:
            check_arrays("inputs", self.inputs, arrays)
        with self.cuda.bound():
            return self._enqueue(arrays, self._take(tensors))

    def run_into(self, feeds: Mapping[str, Any], outputs: Mapping[str, NDArray[Any]]) -> None:
        """Run once into arrays of the caller's, allocating nothing.

        Args:
            feeds: As for :meth:`run_async`.
            outputs: One array per output, by name, of its exact shape and dtype; any strides.

        Raises:
            As :meth:`run_async`; InputError also for an output that does not fit.
        """
        check_arrays("outputs", self.outputs, outputs)
        for name, result in self.run_async(feeds).wait().items():
            np.copyto(outputs[name], result)

    def layer_times(self, runs: int = 20) -> list[LayerTime]:
        """Time every layer of the engine, in its order, on what the session's own memory holds.

        That is the last input that was given as an array; a tensor that lay elsewhere on the GPU may be gone by now. In an
        execution context of its own and without a graph, so the sum is a little more than a run takes.

        Raises:
            BackendError: The session is closed, or a run is under way.
            DeviceError: The GPU fails.
        """
        self._require_open()
        self._require_idle()
        with self.cuda.bound():
            addresses = {name: buffer.pointer for name, buffer in self._device.items()}
            return time_layers(self._engine, addresses, self.cuda, self._stream, runs)

    def _run(self, feeds: Arrays) -> Arrays:
        with self.cuda.bound():
            results = self._enqueue(feeds, {}).wait()
            return {name: result.copy() for name, result in results.items()}

    def _enqueue(self, arrays: Mapping[str, NDArray[Any]], tensors: Mapping[str, DeviceTensor]) -> _Pending:
        self._require_idle()
        for name, array in arrays.items():
            if array is not self._staging[name]:
                np.copyto(self._staging[name], array)
        addresses = {name: tensors[name].pointer if name in tensors else self._device[name].pointer for name in self._device}
        began, sent, computed, fetched = self._events
        self._pending = pending = _Pending(self, tensors)
        try:
            self.cuda.record(began, self._stream)
            if self.memory == "pinned":
                for name in arrays:
                    self.cuda.h2d_async(self._device[name], self._host[name], self._stream)
            self.cuda.record(sent, self._stream)
            self._compute(addresses)
            self.cuda.record(computed, self._stream)
            if self.memory == "pinned":
                for spec in self.outputs:
                    self.cuda.d2h_async(self._host[spec.name], self._device[spec.name], self._stream)
            self.cuda.record(fetched, self._stream)
        except BaseException:
            self._pending = None
            raise
        return pending

    def _compute(self, addresses: dict[str, int]) -> None:
        """Put the network into the stream: as a graph, if there is one for these addresses."""
        is_own = all(addresses[name] == buffer.pointer for name, buffer in self._device.items())
        if self._graph is not None and is_own:
            self.graph_reason = ""
            self.cuda.launch(self._graph, self._stream)
            return
        if self._graph is not None:
            self.graph_reason = "an input lies elsewhere than when the graph was recorded"
        self._set_addresses(addresses)
        self._execute()

    def _finish(self) -> Arrays:
        """Wait for what is under way; after the first run, record the graph."""
        with self.cuda.bound():
            self._pending = None
            self.cuda.synchronise(self._stream)
            began, sent, computed, fetched = self._events
            self._times = {
                "h2d": self.cuda.elapsed_ms(began, sent),
                "compute": self.cuda.elapsed_ms(sent, computed),
                "d2h": self.cuda.elapsed_ms(computed, fetched),
            }
            results = {spec.name: _array(self._host[spec.name], spec) for spec in self.outputs}
            if self._wants_graph:
                self._wants_graph = False
                self._record_graph()
            return results

    def _record_graph(self) -> None:
        if not self.cuda.has_graphs:
            self.graph_reason = f"{self.cuda.name} has no CUDA graphs"
            return
        self._set_addresses({name: buffer.pointer for name, buffer in self._device.items()})
        try:
            self._graph = self.cuda.capture(self._stream, self._execute)
        except DeviceError as error:  # some engines cannot be recorded; whatever else it is shows at the next run
            self.graph_reason = f"the engine cannot be recorded: {error}"

    def _execute(self) -> None:
        assert self._context is not None  # an open session has one
        if not self._context.execute_async_v3(self._stream.handle):
            raise DeviceError(
                f"TensorRT cannot run the engine: {self._engine.messages.last()}", hint="`nvidia-smi` or `dmesg` may say why"
            )

    def _set_addresses(self, addresses: Mapping[str, int]) -> None:
        assert self._context is not None  # an open session has one
        for name, address in addresses.items():
            if self._addresses.get(name) != address:
                if not self._context.set_tensor_address(name, address):
                    raise BackendError(f"TensorRT does not take {name!r} where it lies: {self._engine.messages.last()}")
                self._addresses[name] = address

    def _take(self, tensors: Mapping[str, Any]) -> dict[str, DeviceTensor]:
        """Find out where the caller's tensors lie, check them, and have them ready."""
        wanted = {spec.name: spec for spec in self.inputs}
        taken = {}
        for name, tensor in tensors.items():
            if name not in wanted:
                raise InputError(f"the network's inputs are {sorted(wanted)}, got {name!r}")
            found, spec = device_tensor(tensor, self._stream.handle), wanted[name]
            if (found.shape, found.dtype) != (spec.shape, spec.dtype):
                raise InputError(
                    f"{name!r} of the network's inputs is {spec.dtype} {spec.shape}, got {found.dtype} {found.shape}"
                )
            if found.needs_sync:
                self.cuda.synchronise()
            taken[name] = found
        return taken

    def _require_open(self) -> None:
        if self._is_closed:
            raise BackendError(f"this {self.backend} session is closed", hint="open another one")

    def _require_idle(self) -> None:
        if self._pending is not None:
            raise BackendError("a run is under way", hint="wait for it: pending.wait()")

    def _close(self) -> None:
        self._shared.leave(self)

    def let_go(self) -> list[Resource]:
        """Drop what is TensorRT's and return the memory, stream and events that it used, for :class:`SharedEngine` to free."""
        self._is_closed = True
        self._pending = None
        self._staging = {}
        if self._context is not None:
            with suppress(DeviceError):  # a GPU that was lost
                self.cuda.synchronise()
        if self._graph is not None:
            with suppress(DeviceError):
                self.cuda.free(self._graph)
        self._graph = self._context = None
        owned, self._owned = self._owned, []
        return owned


class _Pending:
    """A run that is under way; keeps the caller's tensors alive."""

    def __init__(self, session: TensorRtSession, tensors: Mapping[str, DeviceTensor]) -> None:
        self._session: TensorRtSession | None = session
        self._tensors = tensors

    def wait(self) -> Arrays:
        """Wait for it and return the outputs by name, in memory of the session's that lasts until its next run.

        Raises:
            BackendError: It was waited for already, or the session was closed.
            DeviceError: The GPU fails.
        """
        session, self._session = self._session, None
        if session is None or session._pending is not self:
            raise BackendError("this run was waited for already, or its session was closed", hint="start another one")
        return session._finish()


def _nbytes(spec: TensorSpec) -> int:
    return int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize


def _array(buffer: Buffer, spec: TensorSpec) -> NDArray[Any]:
    return buffer.array.view(spec.dtype).reshape(spec.shape)
