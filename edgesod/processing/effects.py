"""What a frame and its result look like to a person: in 8-bit arithmetic, because at 720p floats cost ten times as much."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.errors import InputError, UsageError
from edgesod.types import Result

if TYPE_CHECKING:
    from cv2.typing import MatLike  # what OpenCV's stubs say its functions return

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]

_TINT_BGR: Colour = (230, 40, 255)  # a magenta that few pictures hold
_TINT_STRENGTH = 0.45
_GREEN_BGR: Colour = (64, 177, 0)
_STRIP_ROWS = 64
_BLUR_SIDE = 320
_BLUR_KERNEL = 15


def apply_effect(name: str, image: Picture, result: Result) -> Picture:
    """Draw an effect.

    Args:
        name: One of :data:`EFFECTS`. ``overlay`` tints the subject and draws its outline, ``mask`` is the mask in white on
            black, ``cutout`` is the frame with everything but the subject transparent, ``blur`` throws the background out
            of focus, ``green`` puts the subject before a green screen.
        image: The frame, uint8 BGR ``(H, W, 3)``; not changed.
        result: What the network made of it.

    Returns:
        uint8 BGR ``(H, W, 3)``; for ``cutout`` uint8 BGRA ``(H, W, 4)`` with straight (not premultiplied) alpha. Never the
        frame itself.

    Raises:
        UsageError: There is no such effect.
        InputError: ``image`` is not a frame of the result's size.
    """
    if name not in _DRAW:
        raise UsageError(f"there is no effect {name!r}", hint=f"effects: {', '.join(EFFECTS)}")
    if image.shape != (*result.size_hw, 3) or image.dtype != np.uint8:
        raise InputError(f"the result belongs to a uint8 frame {(*result.size_hw, 3)}, this one is {image.dtype} {image.shape}")
    return np.asarray(_DRAW[name](image, result), np.uint8)


def composite(bgra: Picture, background_bgr: Colour = (255, 255, 255)) -> Picture:
    """Lay a cutout, uint8 BGRA ``(H, W, 4)`` with straight alpha, on a plain colour; return uint8 BGR ``(H, W, 3)``."""
    alpha = cv2.extractChannel(bgra, 3)
    height, width = alpha.shape
    subject = cv2.cvtColor(bgra, cv2.COLOR_BGRA2BGR)
    return np.asarray(_blend(subject, _plain((height, width), background_bgr), alpha), np.uint8)


def _overlay(image: Picture, result: Result) -> MatLike:
    tinted = _blend(_plain(result.size_hw, _TINT_BGR), image, _alpha(result, _TINT_STRENGTH))
    outlines, _ = cv2.findContours(result.mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    width = max(1, round(min(result.size_hw) / 360))
    return cv2.drawContours(tinted, outlines, -1, _TINT_BGR, width, cv2.LINE_AA)


def _mask(_image: Picture, result: Result) -> MatLike:
    return cv2.cvtColor(result.mask, cv2.COLOR_GRAY2BGR)


def _cutout(image: Picture, result: Result) -> MatLike:
    bgra = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)
    cv2.insertChannel(_alpha(result), bgra, 3)
    return bgra


def _blur(image: Picture, result: Result) -> MatLike:
    alpha = _alpha(result)
    background = _blurred_background(image, alpha)
    return _blend(image, background, alpha, out=background)


def _green(image: Picture, result: Result) -> MatLike:
    return _blend(image, _plain(result.size_hw, _GREEN_BGR), _alpha(result))


_DRAW: dict[str, Callable[[Picture, Result], MatLike]] = {
    "overlay": _overlay,
    "mask": _mask,
    "cutout": _cutout,
    "blur": _blur,
    "green": _green,
}
EFFECTS = tuple(_DRAW)
"""Names of the effects."""


def _alpha(result: Result, most: float = 1.0) -> MatLike:
    """Return how opaque each pixel of the subject is, uint8 ``(H, W)``: the saliency, steepened around the threshold."""
    return cv2.LUT(cv2.convertScaleAbs(result.saliency, alpha=255), _steep_table(result.threshold, most))


def _blend(front: MatLike, back: MatLike, alpha: MatLike, out: MatLike | None = None) -> MatLike:
    """Return ``front · alpha + back · (1 − alpha)``, each product rounded to 8 bits; ``out`` may be ``back``."""
    blended = np.empty_like(front) if out is None else out
    # strip by strip: the intermediate arrays stay in the cache, where whole ones cost more in page faults than in sums
    for start in range(0, front.shape[0], _STRIP_ROWS):
        rows = slice(start, start + _STRIP_ROWS)
        weight = cv2.cvtColor(alpha[rows], cv2.COLOR_GRAY2BGR)
        share = cv2.multiply(front[rows], weight, scale=1 / 255)
        rest = cv2.multiply(back[rows], cv2.bitwise_not(weight, weight), weight, scale=1 / 255)
        cv2.add(share, rest, blended[rows])
    return blended


def _blurred_background(image: Picture, alpha: MatLike) -> MatLike:
    """Blur what is not the subject, leaving the subject out of every average so that it casts no halo."""
    height, width = image.shape[:2]
    factor = max(1, round(max(height, width) / _BLUR_SIDE))
    small_wh = (max(1, width // factor), max(1, height // factor))
    small = cv2.resize(image, small_wh, interpolation=cv2.INTER_AREA)
    # one more than zero: deep inside the subject there is no background to average, and its own colour is as good as any
    weight = 256 - cv2.resize(alpha, small_wh, interpolation=cv2.INTER_AREA).astype(np.float32)
    weights = cv2.cvtColor(weight, cv2.COLOR_GRAY2BGR)
    size = (_BLUR_KERNEL, _BLUR_KERNEL)
    sums, totals = (cv2.blur(cv2.blur(x, size), size) for x in (small * weights, weights))
    return cv2.resize((sums / totals).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)


@lru_cache(maxsize=8)
def _plain(size_hw: tuple[int, int], colour: Colour) -> Picture:
    picture = np.full((*size_hw, 3), colour, np.uint8)
    picture.flags.writeable = False
    return picture


@lru_cache(maxsize=8)
def _steep_table(threshold: float, most: float) -> Picture:
    """Smoothstep up to ``most`` around the threshold, half as wide as the range, for each of the 256 saliencies."""
    t = np.clip((np.arange(256) / 255 - threshold / 2) * 2, 0, 1)
    table: Picture = np.round(255 * most * t * t * (3 - 2 * t)).astype(np.uint8)
    return table
