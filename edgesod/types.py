"""The nouns that travel between rooms: a frame, what the network made of it, what an input or output tensor looks like."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

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
    """

    image: NDArray[np.uint8]
    index: int = 0
    time_s: float = 0.0
    name: str = ""
    captured_at_s: float = 0.0


@dataclass(eq=False)
class Result:
    """What the network says about one frame; maps at frame size are computed when first asked for.

    Attributes:
        map_hw: float32 ``(h, w)`` in [0, 1], the saliency map at the network's own size.
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
        height, width = self.size_hw
        return np.asarray(cv2.resize(self.map_hw, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)

    @cached_property
    def mask(self) -> Mask:
        """The mask at frame size, uint8 ``(H, W)``, 255 where the saliency reaches the threshold, else 0."""
        mask: Mask = np.where(self.saliency >= self.threshold, np.uint8(255), np.uint8(0))
        return mask
