"""Carry a map's edges to where the frame has them, by the guided filter in its fast form."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.buffers import POOL
from edgesod.processing.resize import resize_image
from edgesod.types import SaliencyMap

RADIUS = 2
"""Pixels of the map that a window reaches to either side."""
EPSILON = 1e-3
"""What variance of the guide, in squares of [0, 1], counts as an edge to follow."""

_STRIP_ROWS = 48


def refine(saliency: SaliencyMap, image: NDArray[np.uint8], *, radius: int = RADIUS, epsilon: float = EPSILON) -> SaliencyMap:
    """Return a map at frame size whose edges follow the frame's.

    Within each window the map is written as ``slope · grey + offset`` (He, Sun and Tang, "Guided image filtering", ECCV 2010;
    PAMI 2013), found at the map's own size and stretched to the frame's (He and Sun, "Fast guided filter", arXiv 1505.00996).
    Unlike there the line gives only what is finer than the map, ``stretched map + slope · (grey − stretched small grey)``: a
    network's edges are sharp at its own size already, and the windows' means would blur them.

    Args:
        saliency: float32 ``(h, w)`` in [0, 1].
        image: The frame, uint8 BGR ``(H, W, 3)``.
        radius: See :data:`RADIUS`.
        epsilon: See :data:`EPSILON`; larger follows the frame less.

    Returns:
        float32 ``(H, W)`` in [0, 1].
    """
    grey = POOL.empty(image.shape[:2])
    cv2.cvtColor(image, cv2.COLOR_BGR2GRAY, grey)
    small = resize_image(grey, saliency.shape)
    guide = small * np.float32(1 / 255)
    mean = _window_mean(guide, radius)
    slope = _window_mean(guide * saliency, radius)
    slope -= mean * _window_mean(saliency, radius)
    variance = _window_mean(guide * guide, radius)
    variance -= mean * mean
    variance += np.float32(epsilon)
    slope /= variance
    slope = _window_mean(slope, radius)
    slope *= np.float32(1 / 255)

    size_wh = grey.shape[::-1]
    refined, slopes = POOL.empty(grey.shape, np.float32), POOL.empty(grey.shape, np.float32)
    cv2.resize(saliency, size_wh, refined, interpolation=cv2.INTER_LINEAR)
    cv2.resize(slope, size_wh, slopes, interpolation=cv2.INTER_LINEAR)
    coarse = POOL.empty(grey.shape)
    cv2.resize(small, size_wh, coarse, interpolation=cv2.INTER_LINEAR)
    for top in range(0, len(grey), _STRIP_ROWS):  # strip by strip, so that what lies between the steps stays in the cache
        strip = slice(top, top + _STRIP_ROWS)
        detail = cv2.subtract(grey[strip], coarse[strip], dtype=cv2.CV_32F)
        cv2.accumulateProduct(slopes[strip], detail, refined[strip])
        np.clip(refined[strip], 0, 1, out=refined[strip])
    return refined


def _window_mean(values: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    side = 2 * radius + 1
    mean = POOL.empty(values.shape, np.float32)
    cv2.blur(values, (side, side), mean, borderType=cv2.BORDER_REFLECT)
    return mean
