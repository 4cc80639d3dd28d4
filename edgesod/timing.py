"""Latency in trtexec's words and numbers: percentiles, mean, coefficient of variation, the papers' figures beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

UNSTABLE_CV = 0.025
"""Coefficient of variation above which a measurement is called unstable (trtexec's bound)."""


@dataclass(frozen=True)
class LatencySummary:
    """A set of latencies in milliseconds; ``cv`` is standard deviation over mean."""

    n: int
    mean: float
    min: float
    max: float
    p50: float
    p90: float
    p95: float
    p99: float
    cv: float

    @classmethod
    def from_ms(cls, values_ms: Sequence[float]) -> LatencySummary:
        """Summarise at least one latency."""
        values = np.asarray(values_ms, np.float64)
        if values.size == 0:
            raise ValueError("no latency was measured: there is nothing to summarise")
        p50, p90, p95, p99 = np.percentile(values, (50, 90, 95, 99))
        mean = float(values.mean())
        cv = float(values.std() / mean) if mean else 0.0
        numbers = (mean, values.min(), values.max(), p50, p90, p95, p99, cv)
        return cls(int(values.size), *(round(float(v), 4) for v in numbers))

    def as_dict(self) -> dict[str, float]:
        """Return the numbers by name, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class PaperFigure:
    """A speed a paper reports, and on what."""

    model: str
    fps: float
    size: int
    device: str
    source: str


PAPER_FIGURES = (
    PaperFigure("BASNet", 25, 256, "GTX 1080 Ti", "Qin et al., CVPR 2019"),
    PaperFigure("U²-Net", 30, 320, "GTX 1080 Ti", "Qin et al., Pattern Recognition 2020"),
    PaperFigure("U²-NetP", 40, 320, "GTX 1080 Ti", "Qin et al., Pattern Recognition 2020"),
)
"""The figures every report is set beside: PyTorch FP32, network time only."""


def paper_ratios(fps: float) -> dict[str, float]:
    """Return ``fps`` over each paper figure, by a key such as ``"U²-NetP 40 fps (320², GTX 1080 Ti)"``."""
    return {
        f"{figure.model} {figure.fps:g} fps ({figure.size}², {figure.device})": round(fps / figure.fps, 3)
        for figure in PAPER_FIGURES
    }
