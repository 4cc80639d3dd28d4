"""Latency in trtexec's words and numbers: percentiles, mean, coefficient of variation, the papers' figures beside them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

ROUNDS = 9
RUNS_A_ROUND = 3

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


def interleaved(
    runs: Sequence[Callable[[], tuple[float, ...]]],
    rounds: int = ROUNDS,
    *,
    runs_a_round: int = RUNS_A_ROUND,
    of: Callable[[Iterable[float]], float] = min,
    on_round: Callable[[int], None] = lambda _done: None,
) -> list[list[tuple[float, ...]]]:
    """Time contenders in turns, so that what disturbs the machine disturbs all of them.

    In each round each runs once uncounted, since the threads of the one before may still spin, and then a few times.

    Args:
        runs: Each runs a contender once and returns the times it took, always so many.
        rounds: How often.
        runs_a_round: Counted runs of a contender in a round.
        of: What is kept of a round's counted runs: the best.
        on_round: Told the number of rounds done.

    Returns:
        Per contender, per round, the times.
    """
    found: list[list[tuple[float, ...]]] = [[] for _ in runs]
    for done in range(rounds):
        for run, own in zip(runs, found, strict=True):
            run()
            own.append(tuple(of(times) for times in zip(*(run() for _ in range(runs_a_round)), strict=True)))
        on_round(done + 1)
    return found


def round_ratios(first: Sequence[float], other: Sequence[float]) -> list[float]:
    """Return by round the first contender's time over the other's: above 1 the other is faster. Their median is the ratio."""
    return [one / another for one, another in zip(first, other, strict=True)]


def quartile_spread(values: Sequence[float]) -> float:
    """Return the distance between the quartiles as a share of the median: the middle half of the values lies within it."""
    lower, upper = np.percentile(values, (25, 75))
    return float(upper - lower) / statistics.median(values)
