"""Side by side: ratios of engines that take a known time, drift and scores against arithmetic and the one scorer."""

from __future__ import annotations

import numpy as np
import pytest

from edgesod.bench.compare import compare_accuracy, compare_speed, speeds
from edgesod.evaluation.metrics import SodScorer
from tests.helpers.engines import SIZE_HW
from tests.helpers.sleeping import sleeping_runtime

FRAME = np.zeros((*SIZE_HW, 3), np.uint8)


def test_rounds_are_summarised_as_medians_of_ratios() -> None:
    # the machine was half as fast in the third round, for both
    first, second = speeds([[10, 12, 20, 10, 11], [5, 6, 10, 5, 5]], [[9, 9, 9, 9, 9], [4, 4, 4, 4, 4]])
    assert (first.ms, first.network_ms, first.ratio, first.ratio_spread) == (11, 9, 1, (1, 1))
    assert (second.ms, second.ratio) == (5, 2)
    assert second.ratio_spread == tuple(np.quantile([2, 2, 2, 2, 2.2], (0.25, 0.75)))
    assert first.spread == pytest.approx((12 - 10) / 11, abs=1e-4)


def test_contenders_take_turns_and_the_faster_one_is_told() -> None:
    order: list[str] = []

    def named(name: str):  # type: ignore[no-untyped-def]
        def note(image: np.ndarray) -> np.ndarray:
            order.append(name)
            return image[:, :1] * 0

        return note

    told = []
    with sleeping_runtime(0.02, named("a")) as a, sleeping_runtime(0.01, named("b")) as b:
        slow, fast = compare_speed([a, b], FRAME, rounds=3, on_progress=lambda *done: told.append(done))
    turns = "".join(name for name, before in zip(order, ["", *order], strict=False) if name != before)
    assert turns == "ababab"
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert slow.ratio == 1
    assert fast.ratio > 1.3
    assert fast.network_ms <= fast.ms


def test_maps_are_compared_with_the_first_ones_and_with_the_truth() -> None:
    generator = np.random.default_rng(0)
    levels = [generator.random((1, 1, *SIZE_HW), np.float32) for _ in range(2)]
    truth = np.where(generator.random(SIZE_HW) > 0.5, np.uint8(255), np.uint8(0))
    with sleeping_runtime(0, lambda _: levels[0].copy()) as a, sleeping_runtime(0, lambda _: levels[1].copy()) as b:
        same, other = compare_accuracy([a, b], [(FRAME, truth), (FRAME, truth)])
        blind = compare_accuracy([a, b], [(FRAME, None)])
    assert (same.drift, same.mask_iou) == (0, 1)
    assert other.drift == pytest.approx(np.abs(levels[0] - levels[1]).mean(), abs=1e-6)
    masks = [level[0, 0] >= 0.5 for level in levels]
    assert other.mask_iou == pytest.approx((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum(), abs=1e-4)
    scorer = SodScorer()
    scorer.add(levels[1][0, 0], truth)
    assert other.scores == {name: pytest.approx(scorer.scores()[name]) for name in ("mae", "max_f")}
    assert blind[1].scores == {}
