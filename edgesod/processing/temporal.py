"""What one frame's map owes to the frames before it: averages over time, and telling frames that are nearly the same.

Motion is looked for on a small grey picture of the frame, :func:`small_grey`, which one function makes for all.
"""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.buffers import POOL
from edgesod.processing.resize import Pixel, resize_image
from edgesod.types import SaliencyMap

GREY_SIDE = 160
"""Height and width of the small grey picture: large enough for the motion of what fills a network's pixel or more."""

_STILL, _MOVED = 4.0, 16.0  # grey levels: what a camera's noise leaves after averaging, and what is surely another thing
_NEIGHBOURHOOD = (5, 5)

Grey = NDArray[np.uint8]
NO_GREY: Grey = np.empty((0, 0), np.uint8)


def small_grey(image: NDArray[np.uint8]) -> Grey:
    """Return a frame, uint8 BGR ``(H, W, 3)``, as uint8 grey of :data:`GREY_SIDE` squared."""
    grey = POOL.empty(image.shape[:2])
    cv2.cvtColor(image, cv2.COLOR_BGR2GRAY, grey)
    return resize_image(grey, (GREY_SIDE, GREY_SIDE))


def psnr(one: Grey, other: Grey) -> float:
    """Return the peak signal-to-noise ratio of two grey pictures in dB; infinite where they are equal."""
    mean_square = cv2.norm(one, other, cv2.NORM_L2SQR) / one.size
    return math.inf if mean_square == 0 else 10 * math.log10(255**2 / mean_square)


class PlainAverage:
    """Exponential moving average: ``shown += weight · (new − shown)``, the same everywhere.

    After frames that were held the weight is what it would have come to had the new map come with each of them.

    Args:
        weight: How much a new map counts, in (0, 1].
    """

    def __init__(self, weight: float) -> None:
        self._weight = weight
        self._shown: SaliencyMap | None = None
        self._grey = NO_GREY
        self._num_held = 0

    def add(self, saliency: SaliencyMap, grey: Grey) -> SaliencyMap:
        """Take a frame's map, float32 ``(h, w)``, and return what to show; neither array is written to afterwards.

        Args:
            saliency: The map.
            grey: The frame's :func:`small_grey`.
        """
        shown = saliency
        if self._shown is not None:
            shown = self._mixed(self._shown, saliency, grey, 1 - (1 - self._weight) ** (self._num_held + 1))
        self._shown, self._grey, self._num_held = shown, grey, 0
        return shown

    def hold(self, grey: Grey) -> SaliencyMap:
        """Return what to show for a frame whose map was not computed; not for the first."""
        assert self._shown is not None, "a first frame is never held"
        self._num_held += 1
        return self._shown

    def _mixed(self, shown: SaliencyMap, new: SaliencyMap, grey: Grey, weight: float) -> SaliencyMap:
        if weight == 1:
            return new
        mixed = POOL.empty(new.shape, np.float32)
        cv2.addWeighted(new, weight, shown, 1 - weight, 0, mixed)
        return mixed


class MotionAverage(PlainAverage):
    """Exponential moving average that lets go where the picture changed.

    Where the frame's grey levels are those of the frame the network ran on last, the new map counts ``weight``; where they differ
    by more than a camera's noise it counts up to 1, so that moving edges leave no trail.
    """

    def _mixed(self, shown: SaliencyMap, new: SaliencyMap, grey: Grey, weight: float) -> SaliencyMap:
        return _mixed_by_change(shown, new, _change(grey, self._grey), weight)


class FlowAverage(PlainAverage):
    """Exponential moving average along the motion in the picture.

    The map shown before is first moved to where the optical flow says its pixels went (Kroeger et al., "Fast optical flow using
    dense inverse search", ECCV 2016); where the frame before, moved alike, does not look like this one, the new map counts up to
    1. A frame that is held shows the moved map.
    """

    def __init__(self, weight: float) -> None:
        super().__init__(weight)
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def hold(self, grey: Grey) -> SaliencyMap:
        self._shown, _ = self._moved(super().hold(grey), grey)
        self._grey = grey
        return self._shown

    def _mixed(self, shown: SaliencyMap, new: SaliencyMap, grey: Grey, weight: float) -> SaliencyMap:
        moved, change = self._moved(shown, grey)
        return _mixed_by_change(moved, new, change, weight)

    def _moved(self, shown: SaliencyMap, grey: Grey) -> tuple[SaliencyMap, Grey]:
        """Return the last map as it lies in this frame, and how much this frame differs from the last one moved alike."""
        flow = np.zeros((*grey.shape, 2), np.float32)  # of this frame's pixels, to the last one
        self._flow.calc(grey, self._grey, flow)
        height, width = shown.shape
        large = np.asarray(cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        large *= np.array([width / GREY_SIDE, height / GREY_SIDE], np.float32)
        return _taken_from(shown, large), _change(grey, _taken_from(self._grey, flow))


def _taken_from(picture: NDArray[Pixel], flow: NDArray[np.float32]) -> NDArray[Pixel]:
    """Return what lies ``flow``, float32 ``(h, w, 2)`` in x and y, away from each pixel."""
    taken = POOL.empty(picture.shape, picture.dtype)
    places = flow + _grid(picture.shape[0], picture.shape[1])
    # no second map where the first has x and y; OpenCV's stubs do not know, and an empty array is not the same to it
    cv2.remap(picture, places, None, cv2.INTER_LINEAR, taken, cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return taken


def _change(grey: Grey, before: Grey) -> Grey:
    """Return how far the neighbourhood of each pixel differs, in grey levels."""
    change = POOL.empty(grey.shape)
    cv2.blur(cv2.absdiff(grey, before), _NEIGHBOURHOOD, change)
    return change


def _mixed_by_change(shown: SaliencyMap, new: SaliencyMap, change: Grey, least: float) -> SaliencyMap:
    """Return ``shown + weight · (new − shown)``; the weight rises with the change from ``least`` to 1."""
    weight = POOL.empty(new.shape, np.float32)
    # a table of the 256 levels, and stretched to the map's size afterwards: a quarter of the arithmetic
    cv2.resize(cv2.LUT(change, _weights(least)), new.shape[::-1], weight, interpolation=cv2.INTER_LINEAR)
    mixed = POOL.empty(new.shape, np.float32)
    np.subtract(new, shown, out=mixed)
    mixed *= weight
    mixed += shown
    return mixed


@lru_cache(maxsize=128)
def _weights(least: float) -> NDArray[np.float32]:
    share = np.clip((np.arange(256) - _STILL) / (_MOVED - _STILL), 0, 1)
    weights: NDArray[np.float32] = (least + (1 - least) * share).astype(np.float32)
    return weights


@lru_cache(maxsize=4)
def _grid(height: int, width: int) -> NDArray[np.float32]:
    """Return each pixel's own x and y, float32 ``(h, w, 2)``."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
