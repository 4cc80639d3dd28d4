"""The measure of steadiness measures what it says: known lags, known flicker, a camera whose motion is known."""

from __future__ import annotations

import importlib.util
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from skimage import data

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    sys.path.insert(0, str(SCRIPTS))  # for its neighbour `documents`
    try:
        spec = importlib.util.spec_from_file_location("steady_masks", SCRIPTS / "steady_masks.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["steady_masks"] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def clip(script: ModuleType) -> list:
    picture = cv2.resize(data.astronaut()[:, :, ::-1], (480, 320))
    mask = np.zeros((320, 480), np.uint8)
    cv2.ellipse(mask, (240, 170), (110, 70), 20, 0, 360, 255, -1)
    return list(script.film(picture, mask, 20, np.random.default_rng(5)))


def test_the_same_seed_films_the_same_clip(script: ModuleType, clip: list) -> None:
    picture = cv2.resize(data.astronaut()[:, :, ::-1], (480, 320))
    mask = np.zeros((320, 480), np.uint8)
    again = next(iter(script.film(picture, mask, 20, np.random.default_rng(5))))
    np.testing.assert_array_equal(again.image, clip[0].image)
    assert [view.moves for view in clip] == [True] * 12 + [False] * 8


def test_taking_the_cameras_motion_out_leaves_interpolation(script: ModuleType, clip: list) -> None:
    truth = [view.truth for view in clip]
    moving, resting = script.Mean(), script.Mean()
    script.add_changes([moving, resting], clip, truth)
    plain = np.mean([np.abs(b - a).mean() for a, b in pairwise(truth[:12])])
    assert moving.value < plain / 3
    assert resting.value < 1e-3


def test_flicker_is_measured(script: ModuleType, clip: list) -> None:
    flicker = [np.full_like(view.truth, 0.5 + 0.1 * (k % 2)) for k, view in enumerate(clip)]
    means = [script.Mean(), script.Mean()]
    script.add_changes(means, clip, flicker)
    np.testing.assert_allclose([mean.value for mean in means], 0.1, atol=1e-6)


@pytest.mark.parametrize("lag", [0, 1, 2])
def test_a_delay_is_its_lag(script: ModuleType, clip: list, lag: int) -> None:
    scores = script.Scores()
    delayed = [clip[max(k - lag, 0)].truth for k in range(len(clip))]
    scores.add(clip, delayed, asked=10, seconds=0.02)
    found = scores.as_dict()
    assert found["lag"] == pytest.approx(lag, abs=0.15)
    assert (found["network"], found["ms"]) == (0.5, pytest.approx(1.0))
    assert found["mae"] == pytest.approx(0, abs=0.01) if lag == 0 else found["mae"] > 0.003


def test_half_a_frame_is_half_a_frame(script: ModuleType) -> None:
    errors = {lag: (lag - 0.5) ** 2 + 3 for lag in script.LAGS}
    assert script.best_lag(errors) == pytest.approx(0.5)


def test_a_filter_is_run_as_a_stream_would(script: ModuleType, clip: list) -> None:
    maps = [cv2.resize(view.truth, (64, 64), interpolation=cv2.INTER_AREA) for view in clip]
    shown, asked, _ = script.steadied(clip, maps, "every=2")
    assert asked == 10
    assert shown[3].shape == clip[3].truth.shape
    np.testing.assert_array_equal(shown[3], shown[2])
    assert script.steadied(clip, maps, "")[1] == 20
