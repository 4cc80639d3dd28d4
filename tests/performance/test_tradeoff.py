"""The chart of speed against accuracy: its scores are the scorer's, its line is where it should be, and no map is lost on the way."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from edgesod.evaluation import SodScorer
from edgesod.types import Result

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("tradeoff", BENCHMARKS / "tradeoff.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tradeoff"] = module
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def scored(noise: float, pictures: int = 6) -> list[SodScorer]:
    """Score maps that are the truth under noise, a scorer a picture; the same truths whatever the noise."""
    random, scorers = np.random.default_rng(3), []
    for _ in range(pictures):
        truth = np.zeros((48, 64), np.uint8)
        cv2.circle(truth, tuple(int(v) for v in random.integers(15, 40, 2)), int(random.integers(6, 14)), 255, -1)
        scorers.append(SodScorer())
        scorers[-1].add(np.clip(truth / 255 + noise * random.normal(size=truth.shape), 0, 1), truth)
    return scorers


def test_max_f_by_share_is_the_scorers(script: ModuleType) -> None:
    scorers = scored(0.5)
    times = np.array([2, 0, 1, 1, 0, 2])
    drawn = [scorer for scorer, n in zip(scorers, times, strict=True) for _ in range(n)]
    found = script.max_f_by_share(scorers, np.stack([np.ones(6), times]) / 6)
    expected = [script.merged(scorers).scores()["max_f"], script.merged(drawn).scores()["max_f"]]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_the_line_is_straight_between_its_points(script: ModuleType) -> None:
    kinds = ("line", "line", "between", "between", "between")
    contenders = [script.Contender(kind, (script.square(32 * k),)) for k, kind in enumerate(kinds, 1)]
    good, bad = scored(0.3), scored(0.9)
    top, bottom = (script.merged(one).scores()["max_f"] for one in (good, bad))
    assert top > bottom + 0.05
    # a quarter of the way from the slow and good end, as good as that end; faster than the line reaches; slower than it
    found = script.above_line(contenders, [10.0, 50.0, 20.0, 60.0, 9.0], [good, bad, good, good, good])
    assert [row["above"] for row in (found[0], found[1], found[4])] == [None] * 3
    assert found[3]["above"] == pytest.approx(top - bottom)
    assert found[2]["above"] == pytest.approx((top - bottom) / 4)
    low, high = found[2]["above_95"]
    assert 0 < low <= found[2]["above"] <= high


def test_two_sizes_are_averaged_and_the_refined_has_the_frames_size(script: ModuleType) -> None:
    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    results = [
        Result(np.full((side, side), value, np.float32), (60, 90), 0.5, {"inference": 2})
        for side, value in ((64, 0.2), (32, 0.6))
    ]
    both = script.Contender("two", (script.square(64), script.square(32))).combine(results, image)
    np.testing.assert_allclose(both.map_hw, np.full((64, 64), 0.4), atol=1e-6)
    assert both.times_ms == {"inference": 4}
    assert script.Contender("refined", (script.square(32),)).combine(results[1:], image).map_hw.shape == (60, 90)


def test_a_portrait_picture_gets_the_turned_network(script: ModuleType) -> None:
    oblong = script.Engine(224, 320)
    assert oblong.fit(np.empty((321, 481, 3))) == oblong
    assert oblong.fit(np.empty((481, 321, 3))) == script.Engine(320, 224)
