"""The scores of salient object detection, NumPy only: the one scorer of gate, trainer and ``edgesod eval``.

Two different numbers are called "max F" in the literature. ``max_f`` here is the largest F of the *set's mean precision
and mean recall*, which the published tables use; ``max_f_mean`` is the maximum of the *mean F curve*, which PySODMetrics
reports. They differ by .03 on the same maps, so each has its own name.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

BETA_SQUARED = 0.3
"""Weight of recall in F, as in Achanta et al., "Frequency-tuned salient region detection", CVPR 2009."""


@dataclass
class SodScorer:
    """Accumulate MAE, precision, recall and F over a set; memory does not grow with it.

    Call :meth:`add` once a picture, then read :meth:`scores`.
    """

    n: int = 0
    _mae: float = 0.0
    _precision: NDArray[np.float64] = field(default_factory=lambda: np.zeros(256))
    _recall: NDArray[np.float64] = field(default_factory=lambda: np.zeros(256))
    _f: NDArray[np.float64] = field(default_factory=lambda: np.zeros(256))
    _adaptive_f: float = 0.0

    def add(self, saliency: NDArray[np.float32] | NDArray[np.uint8], truth: NDArray[np.uint8], *, stretch: bool = False) -> None:
        """Add one picture.

        Args:
            saliency: ``(H, W)``, float in [0, 1] or uint8 in [0, 255].
            truth: uint8 ``(H, W)``; above 128 is the object.
            stretch: Min–max stretch the map first, as the published evaluation does.
        """
        if saliency.shape != truth.shape:
            raise ValueError(f"map and truth differ in size: {saliency.shape} against {truth.shape}")
        s = saliency.astype(np.float64) / 255 if saliency.dtype == np.uint8 else saliency.astype(np.float64)
        if stretch and s.max() > s.min():
            s = (s - s.min()) / (s.max() - s.min())
        gt = truth > 128
        self.n += 1
        self._mae += float(np.abs(s - gt).mean())
        precision, recall = precision_recall(s, gt)
        self._precision += precision
        self._recall += recall
        self._f += f_measure(precision, recall)
        self._adaptive_f += _adaptive_f(s, gt)

    def scores(self) -> dict[str, float]:
        """Return the means over the set: ``n``, ``mae``, ``max_f``, ``max_f_mean``, ``mean_f``, ``adp_f``."""
        if not self.n:
            raise ValueError("no picture was added: there is nothing to score")
        f = f_measure(self._precision / self.n, self._recall / self.n)
        return {
            "n": self.n,
            "mae": self._mae / self.n,
            "max_f": float(f.max()),
            "max_f_mean": float((self._f / self.n).max()),
            "mean_f": float((self._f / self.n).mean()),
            "adp_f": self._adaptive_f / self.n,
        }


def precision_recall(saliency: NDArray[np.float64], truth: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return precision and recall, float64 ``(256,)``, at the thresholds 255, 254, … 0 of an 8-bit map in [0, 1]."""
    levels = (saliency * 255).astype(np.uint8)
    inside = np.bincount(levels[truth], minlength=256)[::-1].cumsum()
    outside = np.bincount(levels[~truth], minlength=256)[::-1].cumsum()
    precision = inside / np.maximum(inside + outside, 1)
    recall = inside / max(int(truth.sum()), 1)
    return precision, recall


def f_measure(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return F with β² = 0.3 element by element; 0 where both are 0."""
    numerator = (1 + BETA_SQUARED) * precision * recall
    denominator = BETA_SQUARED * precision + recall
    return numerator / np.where(denominator > 0, denominator, 1)


def _adaptive_f(saliency: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    threshold = min(2 * float(saliency.mean()), 1.0)
    mask = saliency >= threshold
    inside = float((mask & truth).sum())
    if not inside:
        return 0.0
    precision, recall = inside / float(mask.sum()), inside / float(truth.sum())
    return (1 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall)
