"""The nouns that travel between rooms: a frame, what the network made of it, what an input or output tensor looks like."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.buffers import POOL

StageTimes = dict[str, float]
"""Milliseconds by stage: ``capture``, ``preprocess``, ``inference``, ``postprocess``, ``sink``, ``end_to_end``; on a GPU also
``h2d``, ``compute`` and ``d2h``, which are parts of ``inference`` by the GPU's own clock."""

SaliencyMap = NDArray[np.float32]
"""float32 ``(H, W)`` in [0, 1]: how much each pixel belongs to what one looks at first. Not an alpha matte."""

Mask = NDArray[np.uint8]
"""uint8 ``(H, W)``, 0 or 255."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and NumPy dtype name of an engine's input or output; every dimension is fixed."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture from a source.

    Attributes:
        image: uint8 BGR ``(H, W, 3)``.
        index: Position in its source, from 0.
        time_s: Presentation time within the source in seconds; 0 for a still picture.
        name: File name for files and folders, the source's printable name otherwise.
        captured_at_s: ``time.perf_counter()`` when the picture was complete; frame age counts from here.
        source: Which of several sources of a run it comes from, from 0.
    """

    image: NDArray[np.uint8]
    index: int = 0
    time_s: float = 0.0
    name: str = ""
    captured_at_s: float = 0.0
    source: int = 0


class Box(NamedTuple):
    """An upright box in pixels: its left upper corner and its size."""

    x: int
    y: int
    width: int
    height: int


@dataclass(eq=False)
class Result:
    """What the network says about one frame; what takes time is computed when first asked for.

    Attributes:
        map_hw: float32 ``(h, w)`` in [0, 1], the saliency map at the network's own size; at the frame's where its edges were
            refined.
        size_hw: Height and width of the frame in pixels.
        threshold: Saliency from which a pixel belongs to the mask.
        times_ms: Milliseconds by stage (see :data:`StageTimes`).
        frame: The frame itself where it came from a stream, else ``None``.
    """

    map_hw: SaliencyMap
    size_hw: tuple[int, int]
    threshold: float = 0.5
    times_ms: StageTimes = field(default_factory=dict)
    frame: Frame | None = None

    @cached_property
    def saliency(self) -> SaliencyMap:
        """The saliency map at frame size, float32 ``(H, W)`` in [0, 1]."""
        if self.map_hw.shape == self.size_hw:
            return self.map_hw
        return self._stretched(self.map_hw)

    @cached_property
    def levels(self) -> NDArray[np.uint8]:
        """The saliency map at frame size in 256 levels, uint8 ``(H, W)``: what pictures are drawn from.

        Rounded before it is stretched, which takes half the time: off :attr:`saliency` by a level and a half at most.
        """
        levels = POOL.empty(self.map_hw.shape)
        cv2.convertScaleAbs(self.map_hw, levels, alpha=255)
        return levels if self.map_hw.shape == self.size_hw else self._stretched(levels)

    @cached_property
    def mask(self) -> Mask:
        """The mask at frame size, uint8 ``(H, W)``, 255 where the saliency reaches the threshold, else 0."""
        return self._reaching(self.saliency)

    @property
    def box(self) -> Box | None:
        """Where the largest subject is: the smallest upright box around it, in pixels of the frame; ``None`` without one.

        Subjects are told apart on the map as it came from the network, so a side may be off by one of that map's pixels.
        """
        return None if self._subject is None else self._subject[0]

    @property
    def centroid(self) -> tuple[float, float] | None:
        """Mean x and y of the largest subject's pixels, in pixels of the frame; ``None`` without one."""
        return None if self._subject is None else self._subject[1]

    @cached_property
    def _subject(self) -> tuple[Box, tuple[float, float]] | None:
        num_labels, _, stats, centroids = cv2.connectedComponentsWithStats(self._reaching(self.map_hw), connectivity=8)
        if num_labels < 2:
            return None
        largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
        left, top, width, height = (int(v) for v in stats[largest, : cv2.CC_STAT_AREA])
        (H, W), (h, w) = self.size_hw, self.map_hw.shape
        x, y = left * W // w, top * H // h
        box = Box(x, y, -(-(left + width) * W // w) - x, -(-(top + height) * H // h) - y)  # outwards to whole pixels
        centre_x, centre_y = (float(v) + 0.5 for v in centroids[largest])
        return box, (centre_x * W / w - 0.5, centre_y * H / h - 0.5)

    def _reaching(self, saliency: SaliencyMap) -> Mask:
        mask = POOL.empty(saliency.shape)
        np.greater_equal(saliency, self.threshold, out=mask.view(np.bool_))
        np.negative(mask, out=mask)  # 1 becomes 255
        return mask

    def _stretched(self, small: NDArray[Any]) -> NDArray[Any]:
        large = POOL.empty(self.size_hw, small.dtype)
        cv2.resize(small, self.size_hw[::-1], large, interpolation=cv2.INTER_LINEAR)
        return large
