"""Several artefacts side by side: speed in interleaved rounds, accuracy or drift on the same images."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesod.builder.gate import mask_iou
from edgesod.evaluation.metrics import SodScorer
from edgesod.runtime import Runtime
from edgesod.timing import ROUNDS, interleaved, quartile_spread, round_ratios
from edgesod.types import Mask

OnProgress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Speed:
    """How fast one contender is.

    Attributes:
        ms: Median of the rounds' best runs end to end, frame in memory to mask at frame size.
        network_ms: The same of the network alone.
        spread: Middle half of the rounds, from quartile to quartile, as a share of the median.
        ratio: Median over the rounds of the first contender's time over this one's: above 1 is faster than the first.
        ratio_spread: Lower and upper quartile of these ratios.
    """

    ms: float
    network_ms: float
    spread: float
    ratio: float
    ratio_spread: tuple[float, float]


@dataclass(frozen=True)
class Accuracy:
    """How one contender's maps are.

    Attributes:
        drift: Mean absolute difference to the first contender's maps at frame size.
        mask_iou: Mean intersection over union with the first contender's masks.
        scores: ``mae`` and ``max_f`` against ground truth, of the maps as a stream shows them, not stretched as published;
            empty without ground truth.
    """

    drift: float
    mask_iou: float
    scores: dict[str, float]


def compare_speed(
    runtimes: Sequence[Runtime],
    frame: NDArray[np.uint8],
    *,
    rounds: int = ROUNDS,
    on_progress: OnProgress = lambda _done, _total: None,
) -> list[Speed]:
    """Time contenders in interleaved rounds (:func:`edgesod.timing.interleaved`), of each of which the best run counts.

    Args:
        runtimes: The contenders.
        frame: uint8 BGR ``(H, W, 3)``.
        rounds: How often.
        on_progress: Told rounds done and in all.
    """
    runs = [partial(_time, runtime, frame) for runtime in runtimes]
    found = interleaved(runs, rounds, on_round=lambda done: on_progress(done, rounds))
    return speeds([[ms for ms, _ in own] for own in found], [[ms for _, ms in own] for own in found])


def speeds(ms: Sequence[Sequence[float]], network_ms: Sequence[Sequence[float]]) -> list[Speed]:
    """Summarise the rounds of each contender, the first of which is what the others are compared with."""
    summaries = []
    for own, network in zip(ms, network_ms, strict=True):
        ratios = round_ratios(ms[0], own)
        lower, upper = np.percentile(ratios, (25, 75))
        summaries.append(
            Speed(
                ms=round(statistics.median(own), 3),
                network_ms=round(statistics.median(network), 3),
                spread=round(quartile_spread(own), 4),
                ratio=round(statistics.median(ratios), 3),
                ratio_spread=(round(float(lower), 3), round(float(upper), 3)),
            )
        )
    return summaries


def compare_accuracy(
    runtimes: Sequence[Runtime],
    images: Iterable[tuple[NDArray[np.uint8], Mask | None]],
    *,
    on_image: Callable[[int], None] = lambda _done: None,
) -> list[Accuracy]:
    """Run the same images through contenders and compare their maps with the first one's, and with ground truth where there is any.

    Args:
        runtimes: The contenders.
        images: Image, uint8 BGR ``(H, W, 3)``, and mask, uint8 ``(H, W)``, or ``None``; at least one.
        on_image: Told the number of images done.
    """
    drifts: list[list[float]] = [[] for _ in runtimes]
    ious: list[list[float]] = [[] for _ in runtimes]
    scorers = [SodScorer() for _ in runtimes]
    for done, (image, truth) in enumerate(images):
        results = [runtime(image) for runtime in runtimes]
        for k, result in enumerate(results):
            drifts[k].append(float(np.abs(result.saliency - results[0].saliency).mean()))
            ious[k].append(mask_iou(result.mask, results[0].mask))
            if truth is not None:
                scorers[k].add(result.saliency, truth)
        on_image(done + 1)
    return [
        Accuracy(
            drift=round(statistics.fmean(drift), 6),
            mask_iou=round(statistics.fmean(iou), 4),
            scores={name: scorer.scores()[name] for name in ("mae", "max_f")} if scorer.n else {},
        )
        for drift, iou, scorer in zip(drifts, ious, scorers, strict=True)
    ]


def as_dict(runtime: Runtime, speed: Speed, accuracy: Accuracy) -> dict[str, Any]:
    """Return what was found of one contender as one JSON-ready object."""
    return {
        "model": runtime.recipe.model,
        "size": list(runtime.recipe.size_hw),
        "precision": runtime.precision,
        "backend": runtime.backend,
        **vars(speed),
        "ratio_spread": list(speed.ratio_spread),
        "drift": accuracy.drift,
        "mask_iou": accuracy.mask_iou,
        **accuracy.scores,
    }


def _time(runtime: Runtime, frame: NDArray[np.uint8]) -> tuple[float, float]:
    began = time.perf_counter()
    result = runtime(frame)
    _ = result.mask
    return (time.perf_counter() - began) * 1e3, result.times_ms["inference"]
