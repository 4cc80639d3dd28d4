"""E-measure: Fan et al., "Enhanced-alignment Measure for Binary Foreground Map Evaluation", IJCAI 2018."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def alignment(
    inside: NDArray[np.int64] | int, outside: NDArray[np.int64] | int, num_object: int, num_pixels: int
) -> NDArray[np.float64]:
    """Return the E-measure of binary maps, from pixel counts alone.

    A binary map and a binary truth take two values each, so the alignment takes four; the measure is their mean, weighted
    by how many pixels have each.

    Args:
        inside: Object pixels in the map, one number or an array with one per threshold.
        outside: Background pixels in the map, likewise.
        num_object: Object pixels in the truth.
        num_pixels: Pixels in the picture.

    Returns:
        float64 of the shape of ``inside``. The paper divides by one pixel less than there are, so that a perfect map
        scores very slightly above 1.
    """
    in_map = np.add(inside, outside)
    if num_object == 0:
        total = (num_pixels - in_map).astype(np.float64)
    elif num_object == num_pixels:
        total = in_map.astype(np.float64)
    else:
        map_mean, truth_mean = in_map / num_pixels, num_object / num_pixels
        missed = num_object - np.asarray(inside)
        rejected = num_pixels - in_map - missed
        total = (
            inside * _enhanced(1 - map_mean, 1 - truth_mean)
            + outside * _enhanced(1 - map_mean, -truth_mean)
            + missed * _enhanced(-map_mean, 1 - truth_mean)
            + rejected * _enhanced(-map_mean, -truth_mean)
        )
    return np.asarray(total / max(num_pixels - 1, 1))


def _enhanced(a: NDArray[np.float64], b: float) -> NDArray[np.float64]:
    # b is never 0: truths of one value are dealt with before
    return np.asarray((2 * a * b / (a * a + b * b) + 1) ** 2 / 4)
