"""Rounds in turns, by hand, and what is said of them against NumPy and the standard library."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from edgesod.timing import interleaved, quartile_spread, round_ratios


def test_contenders_take_turns_and_the_first_run_of_each_turn_is_not_counted() -> None:
    order: list[str] = []
    times = {"a": iter([100, 5, 3, 100, 7, 8]), "b": iter([100, 9, 2, 100, 4, 6])}

    def run(name: str) -> tuple[float, float]:
        order.append(name)
        own = next(times[name])
        return own, -own

    done: list[int] = []
    found = interleaved([lambda: run("a"), lambda: run("b")], 2, runs_a_round=2, on_round=done.append)
    assert "".join(order) == "aaabbb" * 2
    assert found == [[(3, -5), (7, -8)], [(2, -9), (4, -6)]]
    assert done == [1, 2]
    mean = interleaved([iter([(100.0,), (1.0,), (2.0,)]).__next__], 1, runs_a_round=2, of=statistics.fmean)
    assert mean == [[(1.5,)]]


def test_ratios_are_those_within_a_round() -> None:
    # the machine was half as fast in the second round, for both
    assert round_ratios([10, 20, 12], [5, 10, 4]) == [2, 2, 3]
    with pytest.raises(ValueError, match="zip"):
        round_ratios([1, 2], [1])


def test_the_spread_is_the_distance_of_the_quartiles_over_the_median() -> None:
    values = np.random.default_rng(0).gamma(9, 4, 31).tolist()
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    assert quartile_spread(values) == pytest.approx((high - low) / middle)
    assert quartile_spread([3.0]) == 0
