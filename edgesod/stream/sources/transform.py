"""Turn, mirror and repeat what a source yields."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.stream.base import Source
from edgesod.stream.sources.options import SourceOptions
from edgesod.types import Frame

_ROTATIONS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
_FLIPS = {"horizontal": 1, "vertical": 0}


def turned(source: Source, options: SourceOptions) -> Source:
    """Return the source with every picture rotated, then mirrored; itself where nothing of the kind is asked."""
    return source if options.rotate == 0 and options.flip == "none" else TurnedSource(source, options)


class TurnedSource(Source):
    """A source with every picture rotated clockwise by ``options.rotate`` degrees, then mirrored by ``options.flip``."""

    def __init__(self, source: Source, options: SourceOptions) -> None:
        self.name, self.is_live, self.fps = source.name, source.is_live, source.fps
        self.num_frames, self.patience_s = source.num_frames, source.patience_s
        self._source = source
        self._options = options
        self._describe()

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._source:
            self._describe()
            yield replace(frame, image=self._turn(frame.image))

    def close(self) -> None:
        self.state = "closed"
        self._source.close()

    def _describe(self) -> None:
        size_hw = self._source.size_hw
        self.size_hw = size_hw[::-1] if size_hw is not None and self._options.rotate in (90, 270) else size_hw

    def _turn(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self._options.rotate:
            image = np.asarray(cv2.rotate(image, _ROTATIONS[self._options.rotate]), np.uint8)
        if self._options.flip != "none":
            image = np.asarray(cv2.flip(image, _FLIPS[self._options.flip]), np.uint8)
        return image


class LoopedSource(Source):
    """A clip or pictures, played again and again; indices and times go on.

    Args:
        source: The source, open.
        reopen: Opens it anew for the next round.
        loop: How many more rounds; ``-1`` without end.
    """

    def __init__(self, source: Source, reopen: Callable[[], Source], loop: int) -> None:
        self.name, self.fps, self.size_hw, self.patience_s = source.name, source.fps, source.size_hw, source.patience_s
        self.num_frames = None if loop < 0 or source.num_frames is None else source.num_frames * (loop + 1)
        self._source = source
        self._reopen = reopen
        self._loop = loop
        self._closing = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        index, offset_s, round_ = 0, 0.0, 0
        while True:
            next_s = offset_s
            for frame in self._source:
                yield replace(frame, index=index, time_s=offset_s + frame.time_s)
                index += 1
                next_s = offset_s + frame.time_s + (1 / self.fps if self.fps else 0.0)
            self._source.close()
            if self._closing.is_set() or round_ == self._loop:
                return
            round_ += 1
            offset_s = next_s
            self._source = self._reopen()
            if self._closing.is_set():
                self._source.close()

    def close(self) -> None:
        self.state = "closed"
        self._closing.set()
        self._source.close()
