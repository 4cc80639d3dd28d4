"""The numbers the networks' authors publish, and how far own ones are from them.

Max F and MAE are tables 3 and 4 of the U²-Net paper (Qin et al., "U²-Net: Going Deeper with Nested U-Structure for Salient
Object Detection", Pattern Recognition 2020), weighted F and S-measure the same tables' columns; BAPoolNet's row is its
authors' own and optimistic, since they chose the epoch on DUTS-TE itself. The BASNet paper gives .114 for MAE on SOD.
The relaxed F of the boundary stands beside them; nothing here computes it.

Comparable with them are scores of maps stretched min–max, at the images' published size, and of max F only ``max_f``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """One score beside the published one; ``difference`` is ours less theirs."""

    ours: float
    published: float

    @property
    def difference(self) -> float:
        """Ours less theirs; good above 0, but for MAE below."""
        return self.ours - self.published


DATASETS = ("DUTS-TE", "ECSSD", "HKU-IS", "DUT-OMRON", "PASCAL-S", "SOD")

# max F / MAE in the order of DATASETS
_MAX_F_MAE: dict[str, tuple[tuple[float, float], ...]] = {
    "srm": ((0.826, 0.058), (0.917, 0.054), (0.906, 0.046), (0.769, 0.069), (0.838, 0.084), (0.843, 0.128)),
    "basnet": ((0.860, 0.047), (0.942, 0.037), (0.928, 0.032), (0.805, 0.056), (0.856, 0.076), (0.851, 0.113)),
    "poolnet": ((0.880, 0.040), (0.944, 0.039), (0.932, 0.033), (0.808, 0.056), (0.865, 0.075), (0.871, 0.102)),
    "u2net": ((0.873, 0.044), (0.951, 0.033), (0.935, 0.031), (0.823, 0.054), (0.859, 0.074), (0.861, 0.108)),
    "u2netp": ((0.852, 0.054), (0.943, 0.041), (0.928, 0.037), (0.813, 0.060), (0.849, 0.086), (0.841, 0.124)),
    "bapoolnet": ((0.892, 0.035),),
}

# weighted F / S-measure / relaxed boundary F likewise: the tables have DUTS-TE and ECSSD
_STRUCTURE: dict[str, tuple[tuple[float, float, float], ...]] = {
    "srm": ((0.722, 0.824, 0.592), (0.853, 0.895, 0.672)),
    "basnet": ((0.803, 0.853, 0.758), (0.904, 0.916, 0.826)),
    "poolnet": ((0.807, 0.871, 0.765), (0.896, 0.921, 0.813)),
    "u2net": ((0.804, 0.861, 0.765), (0.910, 0.928, 0.836)),
    "u2netp": ((0.763, 0.847, 0.723), (0.885, 0.918, 0.808)),
}


def published_scores(model: str, dataset: str) -> dict[str, float]:
    """Return the published scores of a network on a set, under the names of :meth:`SodScorer.scores`.

    Args:
        model: ``"u2netp"``, ``"U²-NetP"``, …: case and punctuation do not matter.
        dataset: One of :data:`DATASETS`, likewise.

    Returns:
        ``max_f`` and ``mae``, and where the tables have them ``weighted_f``, ``s_measure`` and ``relaxed_boundary_f``; empty
        for a network or set that the tables do not have.
    """
    columns = [_plain(known) for known in DATASETS]
    if _plain(dataset) not in columns:
        return {}
    column = columns.index(_plain(dataset))
    scores: dict[str, float] = {}
    structure = ("weighted_f", "s_measure", "relaxed_boundary_f")
    for table, names in ((_MAX_F_MAE, ("max_f", "mae")), (_STRUCTURE, structure)):
        row: tuple[tuple[float, ...], ...] = table.get(_plain(model), ())
        if column < len(row):
            scores |= dict(zip(names, row[column], strict=True))
    return scores


def compare_with_published(model: str, dataset: str, scores: Mapping[str, float]) -> dict[str, Difference]:
    """Return own scores beside the published ones, by name of the score; empty where the tables have no such row."""
    published = published_scores(model, dataset)
    return {name: Difference(scores[name], value) for name, value in published.items() if name in scores}


def _plain(name: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKC", name).lower() if c.isalnum())
