"""The sink that keeps nothing."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from edgesod.stream.base import Sink, as_uint8
from edgesod.types import Frame, Result


class NullSink(Sink):
    """Takes every picture and keeps none, for measuring."""

    name = "null"
    wants_picture = False

    def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
        as_uint8(image)
