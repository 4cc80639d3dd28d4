"""The scores of salient object detection over a set: the one scorer of gate, trainer and ``edgesod eval``.

Two different numbers are called "max F" in the literature. ``max_f`` here is the largest F of the *set's mean precision
and mean recall*, which the published tables use; ``max_f_mean`` is the maximum of the *mean F curve*, which PySODMetrics
reports. They differ by .03 on the same maps, so each has its own name. Every other score is PySODMetrics' own definition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .alignment import alignment
from .structure import structure
from .weighted import weighted_f

BETA_SQUARED = 0.3
"""Weight of recall in F, as in Achanta et al., "Frequency-tuned salient region detection", CVPR 2009."""

TRUTH_ABOVE = 128
"""A mask's pixel of a higher value is the object, as in PySODMetrics."""

THRESHOLDS = np.arange(255, -1, -1)
"""The 256 levels of an 8-bit map at which it is cut, in the order of every curve here: a pixel at the level belongs."""

_ROUNDING = 1e-6  # a bilinear resize of float32 may leave [0, 1] by this much


@dataclass(frozen=True, eq=False)
class Curves:
    """A set's curves, each float64 ``(256,)`` in the order of :data:`THRESHOLDS`.

    Attributes:
        precision: Mean precision.
        recall: Mean recall.
        f: F of the mean precision and the mean recall; its maximum is ``max_f``.
        f_mean: Mean of every picture's own F; its maximum is ``max_f_mean``, its mean ``mean_f``.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f: NDArray[np.float64]
    f_mean: NDArray[np.float64]


class SodScorer:
    """Accumulate scores over a set; memory does not grow with it.

    Call :meth:`add` once a picture, then read :meth:`scores`. Parts of a set may be scored apart and merged.

    Args:
        full: Also compute the weighted F, the S-measure and the E-measure, at three times the cost.

    Attributes:
        full: As given.
        n: Pictures added.
    """

    def __init__(self, *, full: bool = False) -> None:
        self.full = full
        self.n = 0
        sums, curves = ["mae", "adp_f"], ["precision", "recall", "f"]
        if full:
            sums += ["weighted_f", "s_measure", "adp_e"]
            curves += ["e"]
        self._sums = dict.fromkeys(sums, 0.0)
        self._curves = {name: np.zeros(256) for name in curves}

    def add(
        self,
        saliency: NDArray[np.float32] | NDArray[np.float64] | NDArray[np.uint8],
        truth: NDArray[np.uint8],
        *,
        stretch: bool = False,
    ) -> None:
        """Add one picture.

        Args:
            saliency: ``(H, W)``, float in [0, 1] or uint8 in [0, 255].
            truth: uint8 ``(H, W)``; above :data:`TRUTH_ABOVE` is the object.
            stretch: Min–max stretch the map first, as the published evaluation does; a flat map stays as it is.

        Raises:
            ValueError: The two differ in size or are empty, or the map is not within [0, 1].
        """
        if saliency.shape != truth.shape or saliency.ndim != 2 or not saliency.size:
            raise ValueError(f"map and truth must be of one size (height, width): {saliency.shape} against {truth.shape}")
        s = _unit_range(saliency, stretch)
        gt = truth > TRUTH_ABOVE
        num_object = int(np.count_nonzero(gt))
        inside, outside = _counts_by_threshold(s, gt)
        precision, recall = _precision_recall(inside, outside, num_object)
        cut = s >= min(2 * float(s.mean()), 1.0)
        cut_inside = int(np.count_nonzero(cut & gt))
        cut_outside = int(np.count_nonzero(cut)) - cut_inside

        self.n += 1
        self._sums["mae"] += float(np.abs(s - gt).mean())
        self._sums["adp_f"] += float(_f_measure(*_precision_recall(cut_inside, cut_outside, num_object)))
        self._curves["precision"] += precision
        self._curves["recall"] += recall
        self._curves["f"] += _f_measure(precision, recall)
        if self.full:
            self._sums["weighted_f"] += weighted_f(s, gt)
            self._sums["s_measure"] += structure(s, gt)
            self._sums["adp_e"] += float(alignment(cut_inside, cut_outside, num_object, gt.size))
            self._curves["e"] += alignment(inside, outside, num_object, gt.size)

    def merge(self, other: SodScorer) -> None:
        """Add what ``other``, a scorer with the same ``full``, has accumulated over other pictures of the set."""
        if other.full != self.full:
            raise ValueError("a full scorer and a cheap one cannot be merged")
        self.n += other.n
        for name, value in other._sums.items():
            self._sums[name] += value
        for name, curve in other._curves.items():
            self._curves[name] += curve

    def curves(self) -> Curves:
        """Return the set's precision, recall and F by threshold."""
        mean = self._mean_curves()
        precision, recall = mean["precision"], mean["recall"]
        return Curves(precision, recall, _f_measure(precision, recall), mean["f"])

    def scores(self) -> dict[str, float]:
        """Return the scores of the set, each in [0, 1] but for ``n``.

        Always ``n``, ``mae`` (the only one where less is better), ``max_f``, ``max_f_mean``, ``mean_f`` (mean of the mean F
        curve over 256 thresholds) and ``adp_f`` (each picture cut at twice its mean). With ``full`` also ``weighted_f``,
        ``s_measure``, and of the E-measure ``e_measure`` (mean of the mean E curve over 256 thresholds), ``max_e`` (its
        maximum) and ``adp_e`` (cut as for ``adp_f``).

        Raises:
            ValueError: No picture was added.
        """
        mean = self._mean_curves()
        f = _f_measure(mean["precision"], mean["recall"])
        sums = {name: value / self.n for name, value in self._sums.items()}
        scores = {
            "n": self.n,
            "mae": sums["mae"],
            "max_f": float(f.max()),
            "max_f_mean": float(mean["f"].max()),
            "mean_f": float(mean["f"].mean()),
            "adp_f": sums["adp_f"],
        }
        if self.full:
            scores |= {
                "weighted_f": sums["weighted_f"],
                "s_measure": sums["s_measure"],
                "e_measure": float(mean["e"].mean()),
                "max_e": float(mean["e"].max()),
                "adp_e": sums["adp_e"],
            }
        return scores

    def _mean_curves(self) -> dict[str, NDArray[np.float64]]:
        if not self.n:
            raise ValueError("no picture was added: there is nothing to score")
        return {name: curve / self.n for name, curve in self._curves.items()}


def _unit_range(saliency: NDArray[np.float32] | NDArray[np.float64] | NDArray[np.uint8], stretch: bool) -> NDArray[np.float64]:
    s = saliency.astype(np.float64)
    if saliency.dtype == np.uint8:
        s /= 255
    lowest, highest = float(s.min()), float(s.max())
    if not (lowest >= -_ROUNDING and highest <= 1 + _ROUNDING):
        raise ValueError(f"a saliency map lies within [0, 1], this one within [{lowest:g}, {highest:g}]")
    if stretch and highest > lowest:
        s -= lowest
        s /= highest - lowest
    return s


def _counts_by_threshold(
    saliency: NDArray[np.float64], truth: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    # numbers of object and of background pixels at or above each of THRESHOLDS, from one histogram of both
    levels = (saliency * 255).astype(np.uint8)
    histogram = np.bincount((levels + truth * np.uint16(256)).ravel(), minlength=512)
    return histogram[:255:-1].cumsum(), histogram[255::-1].cumsum()


def _precision_recall(
    inside: NDArray[np.int64] | int, outside: NDArray[np.int64] | int, num_object: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.divide(inside, np.maximum(inside + outside, 1)), np.divide(inside, max(num_object, 1))


def _f_measure(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> NDArray[np.float64]:
    denominator = BETA_SQUARED * precision + recall
    return np.asarray((1 + BETA_SQUARED) * precision * recall / np.where(denominator > 0, denominator, 1))
