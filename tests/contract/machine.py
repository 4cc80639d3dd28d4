"""The computer that the fake TensorRT believes to run on; a test sets it up and asks it what happened."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol


class SegmentationFault(BaseException):
    """Where the real library would take the process down; not an Exception, so that no code of ours can swallow it."""


class Memory(Protocol):
    """How work on device memory is handed to whoever owns streams."""

    def enqueue(self, stream: int, work: Callable[[], None], reads: list[int], writes: list[int]) -> None:
        """Put work into a stream, by its handle; it may be run later, or again by a graph."""


class AtOnce:
    """No streams: work is done when it is handed over. For tests without a CUDA provider, with addresses of host memory."""

    def enqueue(self, stream: int, work: Callable[[], None], reads: list[int], writes: list[int]) -> None:
        work()


class InMemoryCuda:
    """edgesod's in-memory CUDA provider, with its rules."""

    def enqueue(self, stream: int, work: Callable[[], None], reads: list[int], writes: list[int]) -> None:
        from edgesod.runtime.cuda import memory

        memory.enqueue(stream, work, reads=reads, writes=writes)


def view(address: int, nbytes: int) -> memoryview:
    """Return device memory, which is this process's here, for reading and writing."""
    return memoryview((ctypes.c_ubyte * nbytes).from_address(address)).cast("B")


@dataclass
class Machine:
    """Settings first, then what was seen.

    Attributes:
        has_device: Without one, making a Builder fails as the real one does, and a Runtime of TensorRT 11 is a trap: it can
            be made, and any use of it is a :class:`SegmentationFault`.
        gpu, compute_capability: Plans and timing caches are tied to them.
        device_bytes: Memory of the device: what the workspace may use where no limit is set.
        workspace_needed: A build with a smaller workspace fails.
        fast_fp16, fast_int8: What ``platform_has_fast_…`` says.
        dla_cores: How many DLA cores there are.
        refused_layers: Names of ONNX nodes that no tactic is found for: a build that has one fails and names it.
        keeps_fp32: Names of ONNX nodes for which FP32 is the fastest, whatever a weakly typed build allows.
        build_step_s: Seconds that each step of a build takes.
        memory: Who owns streams and memory.
        touched: Classes that were constructed, in order.
        alive: How many objects of each class live.
        destroyed: Classes of the objects that died, in order.
        calls: Callbacks made, in order: ``("get_batch", …)``, ``("phase_start", …)``.
    """

    has_device: bool = True
    gpu: str = "Fake GPU"
    compute_capability: tuple[int, int] = (8, 7)
    device_bytes: int = 8 << 30
    workspace_needed: int = 0
    fast_fp16: bool = True
    fast_int8: bool = True
    dla_cores: int = 0
    refused_layers: frozenset[str] = frozenset()
    keeps_fp32: frozenset[str] = frozenset()
    build_step_s: float = 0.0
    memory: Memory = field(default_factory=InMemoryCuda)
    touched: list[str] = field(default_factory=list)
    alive: Counter[str] = field(default_factory=Counter)
    destroyed: list[str] = field(default_factory=list)
    calls: list[tuple[str, ...]] = field(default_factory=list)

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Machine:
        """Return a machine out of what JSON can say."""
        kinds = {"compute_capability": tuple, "refused_layers": frozenset, "keeps_fp32": frozenset}
        return cls(**{name: kinds.get(name, lambda value: value)(value) for name, value in settings.items()})
