"""edgesod: salient-object detection from a training set to a robot.

>>> import edgesod
>>> with edgesod.Runtime("engines/u2netp-320-int8") as runtime:  # doctest: +SKIP
...     result = runtime(frame_bgr)

Names are loaded when first used, so importing the package costs next to nothing and never needs torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgesod import errors as errors
    from edgesod.builder import build as build
    from edgesod.calibration import calibrate as calibrate
    from edgesod.manifest import Manifest as Manifest
    from edgesod.recipe import Recipe as Recipe
    from edgesod.runtime import MemorySession as MemorySession
    from edgesod.runtime import Runtime as Runtime
    from edgesod.runtime import Session as Session
    from edgesod.stream import open_sink as open_sink
    from edgesod.stream import open_source as open_source
    from edgesod.stream.sinks.ring import open_ring as open_ring
    from edgesod.types import Frame as Frame
    from edgesod.types import Result as Result

__version__ = "0.1.0"

_HOMES = {
    "Frame": "edgesod.types",
    "Manifest": "edgesod.manifest",
    "MemorySession": "edgesod.runtime",
    "Recipe": "edgesod.recipe",
    "Result": "edgesod.types",
    "Runtime": "edgesod.runtime",
    "Session": "edgesod.runtime",
    "build": "edgesod.builder",
    "calibrate": "edgesod.calibration",
    "errors": "edgesod",
    "open_ring": "edgesod.stream.sinks.ring",
    "open_sink": "edgesod.stream",
    "open_source": "edgesod.stream",
}

__all__ = [
    "Frame",
    "Manifest",
    "MemorySession",
    "Recipe",
    "Result",
    "Runtime",
    "Session",
    "__version__",
    "build",
    "calibrate",
    "errors",
    "open_ring",
    "open_sink",
    "open_source",
]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("edgesod.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'edgesod' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
