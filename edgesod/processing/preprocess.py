"""From a frame to the network's input tensor, as a recipe says."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.buffers import POOL
from edgesod.errors import InputError
from edgesod.processing.resize import resize_image
from edgesod.recipe import Preprocessing, Recipe


def preprocess(image: NDArray[np.uint8], recipe: Recipe, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Resize and normalise a frame.

    Args:
        image: uint8 BGR ``(H, W, 3)``, or anything :func:`as_bgr` takes.
        recipe: Gives ``size_hw = (h, w)``, resize mode, channel order, divisor, mean and standard deviation.
        out: C-contiguous float32 ``(1, 3, h, w)`` to write to; a new array without it.

    Returns:
        float32 ``(1, 3, h, w)``, channels in the recipe's order; ``out`` itself where given.

    Raises:
        InputError: ``image`` is not a picture, or ``out`` is of another shape or type.
    """
    how = recipe.preprocessing
    height, width = recipe.size_hw
    if out is None:
        out = np.empty((1, 3, height, width), np.float32)
    elif out.shape != (1, 3, height, width) or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise InputError(f"preprocess writes to C-contiguous float32 {(1, 3, height, width)}, `out` is {out.dtype} {out.shape}")
    small = resize_image(as_bgr(image), (height, width), how.resize)
    # an all-black picture has no largest value to divide by, and every divisor maps it to the same zeros
    divisor = int(small.max()) or 1 if how.divide_by == "max" else int(how.divide_by)
    planes = POOL.empty((3, height, width))
    cv2.split(small, list(planes))
    if how.colour == "RGB":
        planes = planes[::-1]
    for target, plane, table in zip(out[0], planes, _tables(how, divisor), strict=True):
        cv2.LUT(plane, table, target)
    return out


def as_bgr(image: Any) -> NDArray[np.uint8]:
    """Return a picture as contiguous uint8 BGR ``(H, W, 3)``; what is that already is returned itself.

    Args:
        image: uint8, or uint16 scaled so that 65535 becomes 255: grey ``(H, W)`` or ``(H, W, 1)``, BGR ``(H, W, 3)``, or
            BGRA ``(H, W, 4)``, whose alpha is dropped.

    Raises:
        InputError: Not an array, no pixels, another number of axes or channels, or another type. Floating-point pictures
            are refused because nothing says whether they end at 1 or at 255.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(f"a picture is a NumPy array, this is a {type(image).__name__}", hint="read files with cv2.imread")
    shape = image.shape
    channels = shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise InputError(f"a picture has shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), this array has {shape}")
    if image.size == 0:
        raise InputError(f"the picture has no pixels: its shape is {shape}")
    if image.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"a picture is uint8 or uint16, this array is {image.dtype}",
            hint="scale it to 0–255 and convert: (x * 255).astype(np.uint8)",
        )
    image = np.ascontiguousarray(image)
    if image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=255 / 65535).reshape(shape)
    if channels != 3:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if channels == 1 else cv2.COLOR_BGRA2BGR)
    return np.asarray(image, np.uint8)


@lru_cache(maxsize=64)
def _tables(how: Preprocessing, divisor: int) -> tuple[NDArray[np.float32], ...]:
    """Return, per tensor channel, the float32 value of each of the 256 pixel values."""
    values = np.arange(256) / divisor
    return tuple(((values - mean) / std).astype(np.float32) for mean, std in zip(how.mean, how.std, strict=True))
