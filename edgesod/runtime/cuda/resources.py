"""What a GPU gives out: memory, streams, events and graphs, each with the provider's own object in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesod.errors import DeviceError


@dataclass(eq=False)
class Resource:
    """What a GPU gave out. ``native`` is the provider's own object or number."""

    native: Any


@dataclass(eq=False)
class Buffer(Resource):
    """Memory of the GPU, of the host, or of both.

    Attributes:
        pointer: The address a kernel takes; for pinned memory the host's own.
        nbytes: Its size.
        host: uint8 ``(nbytes,)``, the memory as the host sees it until it is freed; ``None`` for memory of the GPU alone.
    """

    pointer: int
    nbytes: int
    host: NDArray[np.uint8] | None = None

    @property
    def array(self) -> NDArray[np.uint8]:
        """The memory as the host sees it; not to be touched while a copy or a kernel that uses it is under way."""
        if self.host is None:
            raise DeviceError("the host cannot see memory of the GPU alone", hint="copy it with d2h_async first")
        return self.host


@dataclass(eq=False)
class Stream(Resource):
    """Work that is done in order. ``handle`` is its ``cudaStream_t`` as a number."""

    handle: int


@dataclass(eq=False)
class Event(Resource):
    """A moment in a stream."""


@dataclass(eq=False)
class Graph(Resource):
    """Work recorded once, to be launched as a whole."""
