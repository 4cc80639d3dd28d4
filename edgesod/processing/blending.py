"""A subject laid over something else, in 8-bit arithmetic: floats cost ten times as much at 720p.

Only the rectangle that the subject is in is touched, a strip at a time, so that what lies between the steps stays in the cache.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.buffers import POOL
from edgesod.processing.resize import resize_image
from edgesod.types import Result

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]
Region = tuple[slice, slice]

_STRIP_PIXELS = 1 << 15
_BLUR_SIDE = 160
_BLUR_KERNEL = 7


def copy_of(image: Picture) -> Picture:
    """Return a picture's copy."""
    copy = POOL.empty(image.shape)
    np.copyto(copy, image)
    return copy


def plain(size_hw: tuple[int, int], colour: Colour) -> Picture:
    """Return a picture of one colour, uint8 BGR ``(H, W, 3)``."""
    picture = POOL.empty((*size_hw, 3))
    picture[:] = _plain(size_hw[1], colour)
    return picture


def opacity_table(threshold: float, most: float = 1.0) -> Picture:
    """Return how opaque a subject is at each of the 256 levels, uint8 ``(256,)``, up to ``most``.

    A smoothstep around the threshold, half as wide as the range: edges are soft, and what is hardly salient does not show.
    """
    return _opacity_table(float(threshold), most)


def region_of(result: Result, table: Picture) -> Region:
    """Return the rows and columns outside which no pixel of the frame has an opacity above 0."""
    (H, W), (h, w) = result.size_hw, result.map_hw.shape
    least = (int(np.argmax(table > 0)) - 1) / 255  # a level less: levels are rounded
    shown = (result.map_hw >= least).view(np.uint8)
    left, top, width, height = cv2.boundingRect(shown)
    if not width:
        return slice(0, 0), slice(0, 0)
    # bilinear stretching reaches one pixel of the map further
    rows = slice(max(0, (top - 1) * H // h), min(H, -(-(top + height + 1) * H // h)))
    return rows, slice(max(0, (left - 1) * W // w), min(W, -(-(left + width + 1) * W // w)))


def blend(front: Picture | Colour, under: Picture, levels: Picture, table: Picture, region: Region) -> None:
    """Lay ``front`` over ``under``: ``front · a + under · (1 − a)`` with ``a = table[levels] / 255``, products rounded to 8 bits.

    Args:
        front: uint8 BGR ``(H, W, 3)``, or one colour.
        under: uint8 BGR ``(H, W, 3)``; is written to.
        levels: uint8 ``(H, W)``.
        table: uint8 ``(256,)``.
        region: Rows and columns to look at; elsewhere ``under`` stays as it is.
    """
    rows, columns = region
    width = columns.stop - columns.start
    if width <= 0:
        return
    size = max(_STRIP_PIXELS, width)
    grey, weights, shares = POOL.empty((size,)), POOL.empty((size, 3)), POOL.empty((size, 3))
    step = size // width
    for top in range(rows.start, rows.stop, step):
        strip = slice(top, min(top + step, rows.stop)), columns
        shape = strip[0].stop - top, width
        num = shape[0] * width
        alpha, weight, share = (x[:num].reshape(*shape, *x.shape[1:]) for x in (grey, weights, shares))
        cv2.LUT(levels[strip], table, alpha)
        cv2.cvtColor(alpha, cv2.COLOR_GRAY2BGR, weight)
        above = _plain(size, front)[:num].reshape(*shape, 3) if isinstance(front, tuple) else front[strip]
        cv2.multiply(above, weight, share, scale=1 / 255)
        cv2.bitwise_not(weight, weight)
        cv2.multiply(under[strip], weight, weight, scale=1 / 255)
        cv2.add(share, weight, under[strip])


def blurred_background(image: Picture, result: Result, table: Picture) -> Picture:
    """Blur what is not the subject, leaving the subject out of every average so that it casts no halo."""
    height, width = image.shape[:2]
    factor = max(1, round(max(height, width) / _BLUR_SIDE))
    small_hw = (max(1, height // factor), max(1, width // factor))
    small = resize_image(image, small_hw)
    opacity = cv2.LUT(cv2.resize(cv2.convertScaleAbs(result.map_hw, alpha=255), small_hw[::-1]), table).reshape(small_hw)
    # one more than zero: deep inside the subject there is no background to average, and its own colour is as good as any
    weighted, spread = POOL.empty((*small_hw, 4), np.float32), POOL.empty((*small_hw, 4), np.float32)
    np.subtract(256, opacity, out=weighted[:, :, 3], dtype=np.float32)
    np.multiply(small, weighted[:, :, 3:], out=weighted[:, :, :3])
    cv2.blur(weighted, (_BLUR_KERNEL, _BLUR_KERNEL), spread)
    cv2.blur(spread, (_BLUR_KERNEL, _BLUR_KERNEL), weighted)
    background = POOL.empty(small.shape)
    np.divide(weighted[:, :, :3], weighted[:, :, 3:], out=background, casting="unsafe")
    blurred = POOL.empty(image.shape)
    cv2.resize(background, (width, height), blurred, interpolation=cv2.INTER_LINEAR)
    return blurred


@lru_cache(maxsize=8)
def _plain(width: int, colour: Colour) -> Picture:
    row = np.full((width, 3), colour, np.uint8)
    row.flags.writeable = False
    return row


@lru_cache(maxsize=64)
def _opacity_table(threshold: float, most: float) -> Picture:
    t = np.clip((np.arange(256) / 255 - threshold / 2) * 2, 0, 1)
    table: Picture = np.round(255 * most * t * t * (3 - 2 * t)).astype(np.uint8)
    return table
