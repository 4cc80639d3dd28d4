"""Augmentation and the step to a tensor; resizing and normalisation are the runtime's own.

Every random choice comes from a generator seeded by (seed, epoch, index), so a sample is the same in any worker, after any
resume and on any number of machines.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.processing.resize import resize_image


@dataclass(frozen=True)
class Augmentation:
    """How far a training picture may be moved from the original.

    Attributes:
        min_crop: Smallest side of the random crop, as a share of the picture's side.
        flip: Probability of a horizontal flip.
        brightness, contrast, saturation: Largest relative change of each.
        grey: Probability of dropping colour altogether.
    """

    min_crop: float = 0.75
    flip: float = 0.5
    brightness: float = 0.25
    contrast: float = 0.25
    saturation: float = 0.3
    grey: float = 0.05


def augment(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], size: int, options: Augmentation, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a random view of a pair.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        mask: uint8 ``(H, W)``.
        size: Side of the square wanted, in pixels.
        options: How far to go.
        rng: Source of every random choice.

    Returns:
        uint8 RGB ``(size, size, 3)`` and uint8 ``(size, size)``.
    """
    image, mask = _crop(image, mask, options.min_crop, rng)
    image, mask = resize_image(image, (size, size)), resize_image(mask, (size, size))
    if rng.random() < options.flip:
        image, mask = image[:, ::-1], mask[:, ::-1]
    return _jitter(image, options, rng), np.ascontiguousarray(mask)


def _crop(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], smallest: float, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    height, width = mask.shape
    h, w = (max(1, round(side * rng.uniform(smallest, 1.0))) for side in (height, width))
    top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    window = np.s_[top : top + h, left : left + w]
    return image[window], mask[window]


def _jitter(image: NDArray[np.uint8], options: Augmentation, rng: np.random.Generator) -> NDArray[np.uint8]:
    brightness, contrast, saturation = (
        1 + rng.uniform(-most, most) for most in (options.brightness, options.contrast, options.saturation)
    )
    if rng.random() < options.grey:
        saturation = 0.0
    x = image.astype(np.float32) * brightness
    mean = x.mean()
    x = (x - mean) * contrast + mean
    grey = cv2.cvtColor(np.ascontiguousarray(x), cv2.COLOR_RGB2GRAY)[..., None]
    return np.clip(grey + (x - grey) * saturation, 0, 255).astype(np.uint8)
