"""Tidy a saliency map: lift what hangs together with a sure subject, empty specks, fill holes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.buffers import POOL
from edgesod.types import Mask, SaliencyMap

if TYPE_CHECKING:
    from cv2.typing import MatLike  # what OpenCV's stubs say its functions return

_SKIRT = 9  # pixels across: how wide a soft edge of a map is, which goes or stays with what it belongs to


def clean(
    saliency: SaliencyMap, threshold: float, *, hysteresis: float = 0.0, min_area: float = 0.0, max_hole: float = 0.0
) -> SaliencyMap:
    """Return a tidied copy of a map, or the map itself where there is nothing to do.

    Args:
        saliency: float32 ``(h, w)`` in [0, 1].
        threshold: Saliency from which a pixel belongs to the mask.
        hysteresis: With it, what reaches ``threshold − hysteresis`` belongs to the mask where it is connected, by sides or
            corners, to a pixel that reaches ``threshold + hysteresis``, and to nothing otherwise (two levels as in Canny, "A
            computational approach to edge detection", PAMI 1986). Saliencies are moved, so that the mask at ``threshold``
            is just that.
        min_area: Connected pieces of the mask smaller than this share of the map are emptied, with their soft edges.
        max_hole: Holes in the mask (connected by sides, away from the border) up to this share of the map are filled.

    Returns:
        float32 ``(h, w)`` in [0, 1].
    """
    low, high = max(threshold - hysteresis, 0.01), min(threshold + hysteresis, 1.0)
    inside = np.asarray((saliency >= low).view(np.uint8) * np.uint8(255))
    num_labels, labels, stats = _pieces(inside, 8)
    stays = stats[:, cv2.CC_STAT_AREA] >= min_area * saliency.size
    if hysteresis:
        stays &= np.bincount(labels[saliency >= high], minlength=num_labels) > 0
    goes = ~stays
    goes[0] = False
    gone = _looked_up(goes, labels) if goes.any() else None
    kept = inside if gone is None else cv2.subtract(inside, gone)
    filled = _holes(kept, max_hole * saliency.size) if max_hole else None
    if gone is None and filled is None and not hysteresis:
        return saliency

    tidy = POOL.empty(saliency.shape, np.float32)
    if hysteresis:
        # two straight pieces that take low to the threshold and leave 0 and 1 where they are
        np.multiply(saliency, threshold / low, out=tidy)
        np.minimum(tidy, threshold + (saliency - low) * ((1 - threshold) / (1 - low)), out=tidy)
    else:
        np.copyto(tidy, saliency)
    if gone is not None:
        around = cv2.subtract(_widened(gone), _widened(kept))
        tidy[cv2.bitwise_or(gone, around) > 0] = 0
    if filled is not None:
        # with the soft edge around a hole, but not beyond the subject where that is thin
        tidy[cv2.bitwise_and(_widened(filled), cv2.bitwise_or(kept, filled)) > 0] = 1
    return tidy


def _holes(mask: MatLike, most: float) -> Mask | None:
    """Return the holes of up to ``most`` pixels, uint8 0 or 255; ``None`` where there are none."""
    height, width = mask.shape
    _, labels, stats = _pieces(cv2.bitwise_not(mask), 4)
    left, top = stats[:, cv2.CC_STAT_LEFT], stats[:, cv2.CC_STAT_TOP]
    right, bottom = left + stats[:, cv2.CC_STAT_WIDTH], top + stats[:, cv2.CC_STAT_HEIGHT]
    is_hole = (left > 0) & (top > 0) & (right < width) & (bottom < height) & (stats[:, cv2.CC_STAT_AREA] <= most)
    is_hole[0] = False
    return _looked_up(is_hole, labels) if is_hole.any() else None


def _pieces(mask: MatLike, connectivity: int) -> tuple[int, MatLike, MatLike]:
    """Return the number of labels, 0 being what is not in the mask, each pixel's label, and OpenCV's figures of each label."""
    # every other pixel could be a piece; with labels of 16 bits it takes half the time
    kind = cv2.CV_16U if mask.size < 1 << 17 else cv2.CV_32S
    num_labels, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=connectivity, ltype=kind)
    return num_labels, labels, stats


def _looked_up(chosen: NDArray[np.bool_], labels: MatLike) -> Mask:
    mask: Mask = np.take(chosen.astype(np.uint8) * np.uint8(255), np.asarray(labels, labels.dtype))
    return mask


def _widened(mask: MatLike) -> MatLike:
    return cv2.dilate(mask, np.ones((_SKIRT, _SKIRT), np.uint8))
