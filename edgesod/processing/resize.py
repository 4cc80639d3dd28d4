"""Bring a frame to the network's size and a map back to the frame's: the one implementation everything shares.

Training, calibration, the gate and the runtime all call these functions, so the network never meets a picture that was
scaled in another way than the ones it was trained on.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.buffers import POOL

Pixel = TypeVar("Pixel", np.uint8, np.float32)
ResizeMode = Literal["halve-linear", "linear"]


def resize_image(image: NDArray[np.uint8], size_hw: tuple[int, int], mode: ResizeMode = "halve-linear") -> NDArray[np.uint8]:
    """Stretch an image to a size.

    Args:
        image: uint8 ``(H, W, C)`` or ``(H, W)``, any colour order.
        size_hw: Height and width wanted, in pixels.
        mode: ``"halve-linear"`` averages 2×2 blocks while both axes are at least twice the target, then goes linear: close
            to an anti-aliased resize at a quarter of its cost. ``"linear"`` is un-anti-aliased bilinear, which the
            authors' released weights were trained with.

    Returns:
        uint8 of ``size_hw``; the input itself when it already has that size.
    """
    height, width = size_hw
    if mode == "halve-linear":
        while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
            image = _resize(image, (image.shape[0] // 2, image.shape[1] // 2), cv2.INTER_AREA)
    if image.shape[:2] == (height, width):
        return image
    return _resize(image, (height, width), cv2.INTER_LINEAR)


def resize_map(saliency: NDArray[np.float32], size_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Stretch a saliency map, float32 ``(h, w)`` in [0, 1], to ``(H, W)`` bilinearly; the range is kept."""
    height, width = size_hw
    if saliency.shape == (height, width):
        return saliency
    return _resize(saliency, (height, width), cv2.INTER_LINEAR)


def _resize(image: NDArray[Pixel], size_hw: tuple[int, int], interpolation: int) -> NDArray[Pixel]:
    resized = POOL.empty((*size_hw, *image.shape[2:]), image.dtype)
    cv2.resize(image, size_hw[::-1], resized, interpolation=interpolation)
    return resized
