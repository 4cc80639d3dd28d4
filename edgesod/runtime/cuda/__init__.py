"""CUDA in a dozen operations, by cuda-python, pycuda or in memory: all that running an engine takes."""

from __future__ import annotations

from edgesod.runtime.cuda.base import Cuda
from edgesod.runtime.cuda.resources import Buffer, Event, Graph, Resource, Stream
from edgesod.runtime.cuda.select import VARIABLE, choose_provider, driver_is_installed, open_cuda

__all__ = [
    "VARIABLE",
    "Buffer",
    "Cuda",
    "Event",
    "Graph",
    "Resource",
    "Stream",
    "choose_provider",
    "driver_is_installed",
    "open_cuda",
]
