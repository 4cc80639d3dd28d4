"""Raw pictures on standard output, for another program."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesod.errors import OutputError
from edgesod.stream.base import Sink, as_uint8
from edgesod.types import Frame, Result


class PipeSink(Sink):
    """Every picture's bytes, row by row, with nothing before, between or after them.

    A reader has to know the size: uint8 BGR ``(H, W, 3)`` of the frame's size, or BGRA ``(H, W, 4)`` with the effect ``cutout``. A
    reader that is slow makes the run wait.

    Args:
        descriptor: Open for writing; not closed here.
    """

    def __init__(self, descriptor: int = 1) -> None:
        self.name = "standard output"
        self._descriptor = descriptor
        self._shape: tuple[int, ...] | None = None

    def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
        """See :meth:`Sink.write`."""
        image = as_uint8(image)
        self._shape = self._shape or image.shape
        if image.shape != self._shape:
            raise OutputError(
                f"the pipe began with pictures of {self._shape}, this one is {image.shape}: a reader could not tell"
            )
        rest = memoryview(np.ascontiguousarray(image)).cast("B")  # type: ignore[arg-type]
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            raise OutputError(
                f"the pipe is gone: {error.strerror}", hint="see what happened to the program behind it"
            ) from error
