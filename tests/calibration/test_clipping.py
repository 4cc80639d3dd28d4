"""The ranges chosen are those that do best when values are really quantised, and zeros do not decide them."""

from __future__ import annotations

import numpy as np
import pytest

from edgesod.calibration.clipping import least_divergence, least_squared_error
from edgesod.calibration.ranges import Spread

BINS = 8192


def _histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    reach = float(np.abs(values).max()) * 1.0001
    return np.histogram(values, BINS, (-reach, reach))


def _error(values: np.ndarray, low: float, high: float, signed: bool) -> float:
    """Mean squared error of quantising ``values`` for real."""
    step = max(-low, high) / 127 if signed else (high - low) / 255
    first, last = (-127, 127) if signed else (np.rint(low / step), np.rint(high / step))
    return float(((np.clip(np.rint(values / step), first, last) * step - values) ** 2).mean())


def _relu_of_heavy_tails(seed: int) -> np.ndarray:
    return np.maximum(np.random.default_rng(seed).standard_t(3, 200_000), 0)


def _both_signs(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate((rng.normal(-0.5, 0.4, 100_000), rng.laplace(0, 1, 100_000)))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("values", [_relu_of_heavy_tails(0), _both_signs(1)], ids=["relu", "both signs"])
def test_no_other_share_of_the_range_has_less_error(values: np.ndarray, signed: bool) -> None:
    whole = (float(values.min()), float(values.max()))
    low, high = least_squared_error(*_histogram(values), whole, signed=signed)
    shares = np.linspace(0.02, 1, 99)
    best = min(_error(values, s * min(whole[0], 0), s * whole[1], signed) for s in shares)
    assert _error(values, low, high, signed) <= best * 1.02
    assert _error(values, low, high, signed) < 0.9 * _error(values, min(whole[0], 0), whole[1], signed)


@pytest.mark.parametrize("signed", [False, True])
def test_zeros_do_not_decide_the_range(signed: bool) -> None:
    values = _relu_of_heavy_tails(2)
    padded = np.concatenate((values, np.zeros(5_000_000)))
    whole = (0.0, float(values.max()))
    for choose in (least_squared_error, least_divergence):
        counts, edges = _histogram(values)
        more, _ = _histogram(padded)
        assert choose(counts, edges, whole, signed=signed) == choose(more, edges, whole, signed=signed)


def test_a_uniform_distribution_is_kept_whole() -> None:
    values = np.random.default_rng(3).uniform(0, 4, 400_000)
    for choose in (least_squared_error, least_divergence):
        assert choose(*_histogram(values), (0.0, 4.0), signed=False) == pytest.approx((0, 4))


def test_a_few_outliers_are_clipped() -> None:
    values = np.concatenate((np.abs(np.random.default_rng(4).normal(0, 1, 300_000)), [40.0]))
    for choose in (least_squared_error, least_divergence):
        low, high = choose(*_histogram(values), (0.0, 40.0), signed=True)
        assert low == 0
        assert 3 < high < 20


def test_fewer_steps_clip_more() -> None:
    values = _relu_of_heavy_tails(5)
    whole = (0.0, float(values.max()))
    unsigned, signed = (least_squared_error(*_histogram(values), whole, signed=signed)[1] for signed in (False, True))
    assert signed < unsigned


def test_a_spread_knows_them() -> None:
    values = _relu_of_heavy_tails(6).astype(np.float32)
    spread = Spread()
    spread.add(values.reshape(1, 2, 250, 400))
    ranges = spread.ranges()
    for method in ("mse", "entropy", "mse-signed", "entropy-signed"):
        assert ranges[method][0] == 0
        assert 1 < ranges[method][1] < ranges["minmax"][1]
