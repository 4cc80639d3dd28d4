"""S-measure: Fan et al., "Structure-measure: A New Way to Evaluate Foreground Maps", ICCV 2017, with α = 0.5."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_TINY = float(np.finfo(np.float64).eps)


def structure(saliency: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Return the S-measure: half likeness of object and background each as a whole, half likeness of four regions.

    Args:
        saliency: float64 ``(H, W)`` in [0, 1].
        truth: bool ``(H, W)``.

    Returns:
        A number in [0, 1]; for a truth of one value, how much of the map agrees with it.
    """
    share = float(truth.mean())
    if share in (0.0, 1.0):
        return float(saliency.mean()) if share else 1 - float(saliency.mean())
    as_object = share * _likeness(saliency[truth]) + (1 - share) * _likeness(1 - saliency[~truth])
    return max(0.0, 0.5 * as_object + 0.5 * _by_region(saliency, truth))


def _likeness(values: NDArray[np.float64]) -> float:
    mean = float(values.mean())
    deviation = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return 2 * mean / (mean * mean + 1 + deviation)


def _by_region(saliency: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    # four regions meet at the object's centroid, which belongs to the upper left one
    height, width = truth.shape
    num_object = np.count_nonzero(truth)
    y = round(float(truth.sum(axis=1) @ np.arange(height) / num_object)) + 1
    x = round(float(truth.sum(axis=0) @ np.arange(width) / num_object)) + 1
    score = 0.0
    for rows in (slice(0, y), slice(y, height)):
        for columns in (slice(0, x), slice(x, width)):
            part = saliency[rows, columns]
            if part.size:  # a centroid in the last row or column leaves two of them empty
                score += _ssim(part, truth[rows, columns]) * part.size / truth.size
    return score


def _ssim(x: NDArray[np.float64], y: NDArray[np.bool_]) -> float:
    x_mean, y_mean = float(x.mean()), float(y.mean())
    dx, dy = x - x_mean, y - y_mean
    degrees = max(x.size - 1, 1)
    variances = float((dx * dx).sum() + (dy * dy).sum()) / degrees
    numerator = 4 * x_mean * y_mean * float((dx * dy).sum()) / degrees
    denominator = (x_mean * x_mean + y_mean * y_mean) * variances
    if numerator != 0:
        return numerator / (denominator + _TINY)
    return 0.0 if denominator else 1.0
