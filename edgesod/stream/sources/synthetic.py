"""A camera that needs no camera: a moving object whose true mask is known at every moment."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.stream.base import Source
from edgesod.stream.sources.options import SourceOptions, check_options
from edgesod.types import Frame, Mask

_PERIOD_S = 8.0


class SyntheticSource(Source):
    """A bright disc on its way over a dim, textured background, live at its rate.

    As with a camera, frames that nobody fetches in time are never made: an index names a moment, ``index / rate`` seconds
    from the start, and indices are left out.

    Args:
        options: ``width`` and ``height`` (640×480), ``rate`` (30), and ``end_s``, after which it ends like a file.

    Raises:
        UsageError: An option that means nothing to it.
    """

    name = "synthetic"
    is_live = True

    def __init__(self, options: SourceOptions | None = None) -> None:
        options = options or SourceOptions()
        check_options(options, "synthetic://", frozenset(("width", "height", "rate", "end_s")))
        self.size_hw = options.height or 480, options.width or 640
        self.fps = options.rate or 30.0
        self.patience_s = 1 / self.fps + options.patience_s
        self._end_s = options.end_s if options.end_s is not None else math.inf
        self._background = _background(self.size_hw)
        self._closing = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        start_s, index = time.perf_counter(), 0
        assert self.fps is not None
        while index / self.fps < self._end_s:
            if self._closing.wait(max(0.0, start_s + index / self.fps - time.perf_counter())):
                return
            image = self.picture(index)
            now_s = time.perf_counter()
            yield Frame(image, index, index / self.fps, self.name, now_s)
            index = max(index + 1, int((time.perf_counter() - start_s) * self.fps))

    def picture(self, index: int) -> NDArray[np.uint8]:
        """Return frame ``index``, uint8 BGR ``(H, W, 3)``."""
        image: NDArray[np.uint8] = self._background.copy()
        centre, radius = self._place(index)
        cv2.circle(image, centre, radius, (40, 170, 250), cv2.FILLED)
        return image

    def truth(self, index: int) -> Mask:
        """Return the object's mask in frame ``index``, uint8 ``(H, W)``, 0 or 255."""
        assert self.size_hw is not None
        mask = np.zeros(self.size_hw, np.uint8)
        centre, radius = self._place(index)
        cv2.circle(mask, centre, radius, 255, cv2.FILLED)
        return mask

    def close(self) -> None:
        self.state = "closed"
        self._closing.set()

    def _place(self, index: int) -> tuple[tuple[int, int], int]:
        """Return the disc's centre (x, y) and radius in pixels: a figure of eight, once in eight seconds."""
        assert self.fps is not None
        assert self.size_hw is not None
        height, width = self.size_hw
        angle = 2 * math.pi * index / self.fps / _PERIOD_S
        centre = round(width * (0.5 + 0.3 * math.sin(angle))), round(height * (0.5 + 0.25 * math.sin(2 * angle)))
        return centre, max(1, round(0.18 * min(height, width)))


def _background(size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a dim picture with soft blotches, the same each time: a flat one would be nothing a network has seen."""
    coarse = np.random.default_rng(0).integers(30, 110, (9, 12, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, size_hw[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)
