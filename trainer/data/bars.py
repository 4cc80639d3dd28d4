"""Posts, poles and trunks drawn in front of a training picture: things that hide part of the subject and do not belong to it.

A network trained without them marked poles along with the dog behind (``docs/training.md`` has what came of them). What is drawn here
is plain on purpose: a shaded, slightly uneven stripe that comes in from an edge. Only its shape is to be learnt.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_WIDTHS = (0.012, 0.09)
"""Narrowest and widest bar, of the picture's width."""
_MOST_BARS = 3
_MOST_HIDDEN = 0.4
"""Of the subject: past this share there would be too little left to call it the subject."""
_SUBPIXEL_BITS = 4


def draw_bars(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a pair with one to three upright bars in front; where a bar is, the mask is 0.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        mask: uint8 ``(H, W)``.
        rng: Source of every random choice.

    Returns:
        uint8 RGB ``(H, W, 3)`` and uint8 ``(H, W)``: those given, if bars would hide more than 40 % of the subject.
    """
    picture, free = image.astype(np.float32), np.ones(mask.shape, np.float32)
    for _ in range(int(rng.integers(1, _MOST_BARS + 1))):
        cover, colours = _bar(mask.shape, rng)
        picture += cover[..., None] * (colours - picture)
        free *= 1 - cover
    seen = mask * free
    if seen.sum() < (1 - _MOST_HIDDEN) * mask.sum(dtype=np.float64):
        return image, mask
    return np.clip(picture, 0, 255).round().astype(np.uint8), seen.round().astype(np.uint8)


def _bar(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return how much of each pixel a bar covers, 0 to 1, ``(H, W)``, and the bar's colour there, ``(H, W, 3)``."""
    height, width = shape
    thickness = width * float(np.exp(rng.uniform(*np.log(_WIDTHS))))
    middle, lean = rng.uniform(0, width), rng.normal(0, 0.1)
    top, bottom = -1.0, height + 1.0
    kind = rng.random()
    if kind < 0.35:  # a post whose foot is in the picture
        bottom = height * rng.uniform(0.45, 1)
    elif kind < 0.45:  # one whose head is
        top = height * rng.uniform(0, 0.55)

    def axis(y: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(middle + lean * (y - height / 2))

    ends = np.array([top, top, bottom, bottom])
    corners = np.stack([axis(ends) + thickness / 2 * np.array([-1, 1, 1, -1]), ends], axis=1)
    cover = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(cover, np.rint(corners * 2**_SUBPIXEL_BITS).astype(np.int32), 255, cv2.LINE_AA, _SUBPIXEL_BITS)

    y, x = np.mgrid[:height, :width].astype(np.float64)
    across = (x - axis(y)) / thickness  # -0.5 to 0.5 on the bar
    light = 1 - rng.uniform(0, 1.2) * np.abs(across - rng.uniform(-0.5, 0.5))
    cells = rng.normal(0, rng.uniform(0, 0.2), (int(rng.integers(4, 40)), int(rng.integers(4, 40))))
    uneven = cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR) + rng.normal(0, rng.uniform(0, 0.05), shape)
    colour = rng.uniform(20, 230) + rng.normal(0, rng.choice([6, 30]), 3)
    shade = np.maximum(light, 0) * (1 + uneven)
    return (cover / np.float32(255)).astype(np.float32), (shade[..., None] * colour).astype(np.float32)
