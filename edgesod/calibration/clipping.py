"""Ranges that trade clipping against rounding, chosen on a histogram: least squared error, least lost information.

Both try ranges that leave out more and more of the largest values, and both depend on how many steps there are: 255 from the
lowest to the highest value in the unsigned scheme, 127 on either side of zero in the signed one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .table import Range

_SHARES = np.geomspace(1, 1 / 64, 97)
"""Of the whole range, largest first: where two do equally well the one that clips less is taken."""
_SMALLEST_FOR_DIVERGENCE = 1 / 16
"""Below it a step is no wider than a bin, and the histogram knows nothing of what is lost within."""
_ALMOST_NOTHING = 1e-12


def least_squared_error(counts: NDArray[np.int64], edges: NDArray[np.float64], whole: Range, *, signed: bool) -> Range:
    """Return the range whose clipping and rounding together have the least mean squared error.

    Args:
        counts: ``(bins,)``, how many values lie between each two of ``edges``.
        edges: ``(bins + 1,)``, of equal distance, zero among them.
        whole: Lowest and highest value.
        signed: Whether the steps lie symmetrically around zero.
    """
    number = counts.astype(np.float64)
    number[_zero_bin(edges)] = 0  # what a ReLU cut off is zero exactly, and has no error in any range
    centres = (edges[:-1] + edges[1:]) / 2
    low, high, step = _candidates(whole, signed, _SHARES)
    below, above = np.searchsorted(centres, low), np.searchsorted(centres, high)
    # sums over the bins before each one of n, n·x and n·x², from which any squared distance follows
    sums = np.pad(np.cumsum([number, number * centres, number * centres**2], axis=1), ((0, 0), (1, 0)))
    inside = sums[0, above] - sums[0, below]
    beyond = _squares(sums[:, below], low) + _squares(sums[:, -1:] - sums[:, above], high)
    best = int(np.argmin(beyond + step**2 / 12 * inside))
    return float(low[best]), float(high[best])


def least_divergence(counts: NDArray[np.int64], edges: NDArray[np.float64], whole: Range, *, signed: bool) -> Range:
    """Return the range that keeps the distribution of values best, by the Kullback–Leibler divergence.

    The procedure is Migacz's, "8-bit Inference with TensorRT", GTC 2017: what is clipped counts as the range's last value,
    and each step's values are spread over the bins it covers. The bin at zero is first set to its neighbour's count: what a
    ReLU left there is exact in any range, and would otherwise outweigh all the rest and make the range far too narrow.

    Args and return value are those of :func:`least_squared_error`.
    """
    number = counts.astype(np.float64)
    zero = _zero_bin(edges)
    number[zero] = number[zero + 1]
    if not number.any():
        return whole
    centres = (edges[:-1] + edges[1:]) / 2
    shares = _SHARES[_SHARES >= _SMALLEST_FOR_DIVERGENCE]
    low, high, step = _candidates(whole, signed, shares)
    divergences = [_divergence(number, centres, *candidate) for candidate in zip(low, high, step, strict=True)]
    best = int(np.argmin(divergences))
    return float(low[best]), float(high[best])


def _squares(sums: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Σ n·(x − end)² from Σ n, Σ n·x and Σ n·x²."""
    return np.asarray(sums[2] - 2 * end * sums[1] + end**2 * sums[0])


def _divergence(counts: NDArray[np.float64], centres: NDArray[np.float64], low: float, high: float, step: float) -> float:
    first, last = np.searchsorted(centres, (low, high))
    first, last = min(int(first), len(counts) - 1), max(int(last), int(first) + 1)
    inside = counts[first:last]
    wanted = inside.copy()
    wanted[0] += counts[:first].sum()
    wanted[-1] += counts[last:].sum()
    steps = ((centres[first:last] - low) / step).astype(np.int64)
    is_there = wanted > 0
    mass = np.bincount(steps, inside)
    bins = np.bincount(steps, is_there)
    spread = np.where(is_there, (mass / np.maximum(bins, 1))[steps], 0)
    p, q = wanted[is_there] / wanted.sum(), spread[is_there] / max(spread.sum(), _ALMOST_NOTHING)
    return float((p * np.log(p / np.maximum(q, _ALMOST_NOTHING))).sum())


def _candidates(
    whole: Range, signed: bool, shares: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return lowest value, highest value and step of each range tried; zero is in all of them, as in every scale."""
    low, high = min(whole[0], 0.0), max(whole[1], 0.0)
    if signed:  # the steps reach equally far to either side, so nothing on the shorter one is clipped before the longer one is
        reach = shares * max(-low, high)
        return np.maximum(-reach, low), np.minimum(reach, high), reach / 127
    return shares * low, shares * high, shares * (high - low) / 255


def _zero_bin(edges: NDArray[np.float64]) -> int:
    return int(np.searchsorted(edges, 0.0, side="right")) - 1
