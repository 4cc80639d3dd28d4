"""What a frame and its result look like to a person."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from edgesod.buffers import POOL
from edgesod.errors import InputError, UsageError
from edgesod.processing.blending import (
    Colour,
    Picture,
    Region,
    blend,
    blurred_background,
    copy_of,
    opacity_table,
    plain,
    region_of,
)
from edgesod.types import Result

_TINT_BGR: Colour = (230, 40, 255)  # a magenta that few pictures hold
_TINT_STRENGTH = 0.45
_GREEN_BGR: Colour = (64, 177, 0)
_SMOOTHING = 0.75  # pixels that an outline may be off
_IDENTITY = np.arange(256, dtype=np.uint8)


def apply_effect(name: str, image: Picture, result: Result, background: Picture | None = None) -> Picture:
    """Draw an effect.

    Args:
        name: One of :data:`EFFECTS`. ``overlay`` tints the subject and draws its outline, ``mask`` is the mask in white on
            black, ``cutout`` is the frame with everything but the subject transparent, ``blur`` throws the background out
            of focus, ``green`` puts the subject before a green screen, ``replace`` before another picture, ``outline`` draws
            around it, and ``box`` draws the box of the largest subject and a cross on its centroid.
        image: The frame, uint8 BGR ``(H, W, 3)``; not changed.
        result: What the network made of it.
        background: For ``replace``: uint8 BGR of any size, scaled to cover the frame and cut to it around its centre.

    Returns:
        uint8 BGR ``(H, W, 3)``; for ``cutout`` uint8 BGRA ``(H, W, 4)`` with straight (not premultiplied) alpha. Never the
        frame itself.

    Raises:
        UsageError: There is no such effect, or ``replace`` has no background.
        InputError: ``image`` is not a frame of the result's size.
    """
    check_effect(name, has_background=background is not None)
    if image.shape != (*result.size_hw, 3) or image.dtype != np.uint8:
        raise InputError(f"the result belongs to a uint8 frame {(*result.size_hw, 3)}, this one is {image.dtype} {image.shape}")
    if name == "replace" and background is not None:
        return _before(copy_of(cover(background, result.size_hw)), image, result)
    return _DRAW[name](image, result)


def check_effect(name: str, *, has_background: bool) -> None:
    """Raise UsageError unless there is such an effect and what it needs."""
    if name not in EFFECTS:
        raise UsageError(f"there is no effect {name!r}", hint=f"effects: {', '.join(EFFECTS)}")
    if name == "replace" and not has_background:
        raise UsageError("the effect 'replace' needs a background", hint="--background FILE, a picture or a video")


def cover(picture: Picture, size_hw: tuple[int, int]) -> Picture:
    """Scale a picture, uint8 BGR ``(H, W, 3)``, until it covers a size, and cut it to that around its centre."""
    height, width = size_hw
    scale = max(height / picture.shape[0], width / picture.shape[1])
    # cut first: what is cut away need not be scaled
    h, w = (max(1, round(side / scale)) for side in size_hw)
    top, left = (picture.shape[0] - h) // 2, (picture.shape[1] - w) // 2
    part = picture[max(0, top) : max(0, top) + h, max(0, left) : max(0, left) + w]
    if part.shape[:2] == size_hw:
        return part
    covering = POOL.empty((*size_hw, 3))
    cv2.resize(part, (width, height), covering, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return covering


def composite(bgra: Picture, background_bgr: Colour = (255, 255, 255)) -> Picture:
    """Lay a cutout, uint8 BGRA ``(H, W, 4)`` with straight alpha, on a plain colour; return uint8 BGR ``(H, W, 3)``."""
    height, width = bgra.shape[:2]
    under = plain((height, width), background_bgr)
    subject = cv2.cvtColor(bgra, cv2.COLOR_BGRA2BGR)
    blend(np.asarray(subject, np.uint8), under, bgra[:, :, 3], _IDENTITY, (slice(0, height), slice(0, width)))
    return under


def _overlay(image: Picture, result: Result) -> Picture:
    table = opacity_table(result.threshold, _TINT_STRENGTH)
    picture, region = copy_of(image), region_of(result, table)
    blend(_TINT_BGR, picture, result.levels, table, region)
    return _outlined(picture, result, region, _line_width(result))


def _mask(_image: Picture, result: Result) -> Picture:
    picture = POOL.empty((*result.size_hw, 3))
    cv2.cvtColor(result.mask, cv2.COLOR_GRAY2BGR, picture)
    return picture


def _cutout(image: Picture, result: Result) -> Picture:
    bgra, alpha = POOL.empty((*result.size_hw, 4)), POOL.empty(result.size_hw)
    cv2.cvtColor(image, cv2.COLOR_BGR2BGRA, bgra)
    cv2.LUT(result.levels, opacity_table(result.threshold), alpha)
    cv2.insertChannel(alpha, bgra, 3)
    return bgra


def _blur(image: Picture, result: Result) -> Picture:
    return _before(blurred_background(image, result, opacity_table(result.threshold)), image, result)


def _green(image: Picture, result: Result) -> Picture:
    return _before(plain(result.size_hw, _GREEN_BGR), image, result)


def _outline(image: Picture, result: Result) -> Picture:
    region = region_of(result, opacity_table(result.threshold))
    return _outlined(copy_of(image), result, region, 2 * _line_width(result))


def _box(image: Picture, result: Result) -> Picture:
    picture = copy_of(image)
    if result.box is not None and result.centroid is not None:
        x, y, width, height = result.box
        cv2.rectangle(picture, (x, y), (x + width - 1, y + height - 1), _TINT_BGR, 2 * _line_width(result))
        centre = round(result.centroid[0]), round(result.centroid[1])
        cross = max(3, min(result.size_hw) // 24)
        cv2.drawMarker(picture, centre, _TINT_BGR, cv2.MARKER_CROSS, cross, 2 * _line_width(result))
    return picture


def _before(background: Picture, image: Picture, result: Result) -> Picture:
    table = opacity_table(result.threshold)
    blend(image, background, result.levels, table, region_of(result, table))
    return background


def _outlined(picture: Picture, result: Result, region: Region, width: int) -> Picture:
    part = np.ascontiguousarray(result.levels[region] >= round(255 * result.threshold)).view(np.uint8)
    if part.size:
        outlines, _ = cv2.findContours(part, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE, offset=(region[1].start, region[0].start))
        # smooth lines cost by the piece, and steps between pixels are nothing that anybody wants to see
        smooth = [cv2.approxPolyDP(line, _SMOOTHING, True) for line in outlines]
        cv2.drawContours(picture, smooth, -1, _TINT_BGR, width, cv2.LINE_AA)
    return picture


def _line_width(result: Result) -> int:
    return max(1, round(min(result.size_hw) / 360))


_DRAW: dict[str, Callable[[Picture, Result], Picture]] = {
    "overlay": _overlay,
    "mask": _mask,
    "cutout": _cutout,
    "blur": _blur,
    "green": _green,
    "outline": _outline,
    "box": _box,
}
EFFECTS = (*_DRAW, "replace")
"""Names of the effects."""
