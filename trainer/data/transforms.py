"""From a picture and its mask to a random view of both at the size that is trained on.

One family with the runtime: the resize is the runtime's own (:mod:`edgesod.processing.resize`), and normalisation reads the very
record that it reads (:func:`trainer.data.loader.normalise_batch`). Every random choice comes from a generator seeded by (seed,
epoch, index), so a sample is the same in any worker, after any resume and on any number of machines.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgesod.processing.resize import ResizeMode, resize_image

from .bars import draw_bars

_LUMA = np.array([0.299, 0.587, 0.114])  # of RGB, ITU-R BT.601


class Augmentation(BaseModel):
    """How far a training picture may be moved from the original: the ``[augmentation]`` of a recipe.

    Picture and mask are cropped, brought to size, mirrored and hidden in part together; colours change in the picture alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_crop: float = Field(default=0.75, gt=0, le=1)
    """A window of at least this share of either side is cut at random and brought to the size wanted."""
    rescale: int | None = Field(default=None, gt=0)
    """In place of ``min_crop``: bring the whole picture to this many pixels in height and width and cut a random window of the size
    wanted out of that, as the authors of U²-Net (320, then 288) and BASNet (256, then 224) do."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of swapping left and right."""
    flip_vertical: float = Field(default=0.0, ge=0, le=1)
    """Probability of turning it upside down."""
    brightness: float = Field(default=0.25, ge=0, lt=1)
    """Largest relative change; likewise the next two."""
    contrast: float = Field(default=0.25, ge=0, lt=1)
    saturation: float = Field(default=0.3, ge=0, lt=1)
    grey: float = Field(default=0.05, ge=0, le=1)
    """Probability of dropping colour altogether."""
    bars: float = Field(default=0.0, ge=0, le=1)
    """Probability of posts and trunks in front (:func:`trainer.data.bars.draw_bars`)."""
    mask_resize: Literal["as-image", "nearest"] = "as-image"
    """``nearest`` keeps a mask's own values, as the authors of U²-Net and BASNet do; else its edges become soft."""

    @model_validator(mode="after")
    def _crops_one_way(self) -> Augmentation:
        if self.rescale is not None and "min_crop" in self.model_fields_set:
            raise ValueError("rescale and min_crop are two ways to crop: give one")
        return self


def augment(
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    size: int,
    options: Augmentation,
    rng: np.random.Generator,
    resize: ResizeMode = "halve-linear",
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a random view of a pair.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        mask: uint8 ``(H, W)``.
        size: Side of the square wanted, in pixels; at most ``options.rescale``.
        options: How far to go.
        rng: Source of every random choice.
        resize: How pictures are scaled.

    Returns:
        uint8 RGB ``(size, size, 3)`` and uint8 ``(size, size)``.
    """

    def scale(side: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        if options.mask_resize == "nearest":
            small = cv2.resize(mask, (side, side), interpolation=cv2.INTER_NEAREST_EXACT)
            return resize_image(image, (side, side), resize), np.asarray(small, np.uint8)
        return resize_image(image, (side, side), resize), resize_image(mask, (side, side), resize)

    if options.rescale is None:
        height, width = (max(1, round(side * rng.uniform(options.min_crop, 1.0))) for side in mask.shape)
        image, mask = _cut(image, mask, height, width, rng)
        image, mask = scale(size)
    else:
        image, mask = scale(options.rescale)
        image, mask = _cut(image, mask, size, size, rng)
    if rng.random() < options.flip:
        image, mask = image[:, ::-1], mask[:, ::-1]
    if rng.random() < options.flip_vertical:
        image, mask = image[::-1], mask[::-1]
    if options.bars and rng.random() < options.bars:  # no draw where there are none: older recipes see the pictures they saw
        image, mask = draw_bars(image, mask, rng)
    return _jitter(np.ascontiguousarray(image), options, rng), np.ascontiguousarray(mask)


def _cut(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], height: int, width: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    top, left = (int(rng.integers(0, whole - part + 1)) for whole, part in zip(mask.shape, (height, width), strict=True))
    window = np.s_[top : top + height, left : left + width]
    return image[window], mask[window]


def _jitter(image: NDArray[np.uint8], options: Augmentation, rng: np.random.Generator) -> NDArray[np.uint8]:
    brightness, contrast, saturation = (
        1 + rng.uniform(-most, most) for most in (options.brightness, options.contrast, options.saturation)
    )
    if rng.random() < options.grey:
        saturation = 0.0
    if brightness == contrast == saturation == 1:
        return image
    # scaling, moving away from the picture's mean and moving away from each pixel's grey are one affine map of colour
    mean = float(np.mean(cv2.mean(image)[:3])) * brightness
    colour = saturation * np.eye(3) + (1 - saturation) * _LUMA
    affine = np.hstack([brightness * contrast * colour, np.full((3, 1), mean * (1 - contrast))])
    return np.asarray(cv2.transform(image, affine), np.uint8)
