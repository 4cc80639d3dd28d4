"""Scores of saliency maps, the sets they are scored on, and the curves and tables made of them."""

from __future__ import annotations

from .curves import draw_curves, write_curves
from .metrics import Curves, SodScorer
from .pairs import EvaluationSet, evenly_spread, hold_out, name_of
from .published import compare_with_published, published_scores
from .scoring import accumulate_folder, accumulate_predictions

__all__ = [
    "Curves",
    "EvaluationSet",
    "SodScorer",
    "accumulate_folder",
    "accumulate_predictions",
    "compare_with_published",
    "draw_curves",
    "evenly_spread",
    "hold_out",
    "name_of",
    "published_scores",
    "write_curves",
]
