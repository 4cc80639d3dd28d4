"""Weighted F: Margolin, Zelnik-Manor and Tal, "How to Evaluate Foreground Maps?", CVPR 2014, with β = 1."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_RADIUS = 3  # of the 7×7 Gaussian, σ 5, through which an error is shared with its neighbours
_GAUSSIAN = np.exp(-(np.arange(-_RADIUS, _RADIUS + 1) ** 2) / (2 * 5.0**2))
_GAUSSIAN /= _GAUSSIAN.sum()

# Steps (dy, dx) no longer than that kernel's corner, nearest first. Among equally near ones the paper names no order; this
# one (smaller column, then smaller row) is SciPy's, so that results agree with tools built on it to the last digits.
_REACH = 2 * _RADIUS**2
_MARGIN = int(_REACH**0.5)
_STEPS = sorted(
    ((dy, dx) for dy in range(-_MARGIN, _MARGIN + 1) for dx in range(-_MARGIN, _MARGIN + 1) if 0 < dy * dy + dx * dx <= _REACH),
    key=lambda step: (step[0] ** 2 + step[1] ** 2, step[1], step[0]),
)


def weighted_f(saliency: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Return the weighted F of one map: errors weigh less beside detected object pixels, more far from the object.

    Args:
        saliency: float64 ``(H, W)`` in [0, 1].
        truth: bool ``(H, W)``.

    Returns:
        A number in [0, 1]; 0 for a truth without an object.
    """
    num_object = int(np.count_nonzero(truth))
    if not num_object:
        return 0.0
    error = np.abs(saliency - truth)
    squared_distance = _squared_distance(truth)
    window = _around(truth)
    missed = _missed(error[window], truth[window], squared_distance[window])
    background = ~truth
    importance = 2 - np.exp(np.log(0.5) / 5 * np.sqrt(squared_distance[background]))
    falsely_found = float((error[background] * importance).sum())
    found = num_object - missed
    if found <= 0:
        return 0.0
    precision, recall = found / (found + falsely_found), found / num_object
    return 2 * precision * recall / (precision + recall)


def _squared_distance(truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    # OpenCV's distances are float32 and differ in the last bit from call to call; their squares are whole numbers
    distance = cv2.distanceTransform((~truth).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(np.rint(np.square(distance, dtype=np.float64)))


def _around(truth: NDArray[np.bool_]) -> tuple[slice, slice]:
    # the object's bounding box and the kernel's reach about it
    rows, columns = np.flatnonzero(truth.any(axis=1)), np.flatnonzero(truth.any(axis=0))
    return (
        slice(max(rows[0] - _RADIUS, 0), rows[-1] + _RADIUS + 1),
        slice(max(columns[0] - _RADIUS, 0), columns[-1] + _RADIUS + 1),
    )


def _missed(error: NDArray[np.float64], truth: NDArray[np.bool_], squared_distance: NDArray[np.float64]) -> float:
    spread = _carry_outwards(error, truth, (squared_distance > 0) & (squared_distance <= _REACH))
    shared = cv2.sepFilter2D(spread, cv2.CV_64F, _GAUSSIAN, _GAUSSIAN, borderType=cv2.BORDER_CONSTANT)
    return float(np.sum(np.minimum(error, shared), where=truth))


def _carry_outwards(error: NDArray[np.float64], truth: NDArray[np.bool_], near: NDArray[np.bool_]) -> NDArray[np.float64]:
    # Gives each background pixel near the object the error of its nearest object pixel. Those farther off keep their own: the
    # kernel cannot carry it to an object pixel, and only there is the result read.
    spread = np.pad(error, _MARGIN)
    is_object = np.pad(truth, _MARGIN)
    stride = spread.shape[1]
    left = np.flatnonzero(np.pad(near, _MARGIN))
    values, objects = spread.ravel(), is_object.ravel()
    for dy, dx in _STEPS:
        if not left.size:
            break
        source = left + (dy * stride + dx)
        hit = objects[source]
        values[left[hit]] = values[source[hit]]
        left = left[~hit]
    return spread[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
