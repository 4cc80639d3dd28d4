"""Averages over time against sums written out, and against pictures whose motion is known."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from edgesod.processing.temporal import FlowAverage, MotionAverage, PlainAverage, psnr, small_grey

RNG = np.random.default_rng(0)
GREY = cv2.GaussianBlur(RNG.integers(0, 256, (200, 200)).astype(np.uint8), (0, 0), 3)
GREY = cv2.normalize(GREY, None, 0, 255, cv2.NORM_MINMAX)
STILL = GREY[20:180, 20:180].copy()


def _seen(dx: int) -> np.ndarray:
    """Return the same scene, its pixels moved by ``dx`` to the right."""
    return GREY[20:180, 20 - dx : 180 - dx].copy()


def _square(dx: float = 0.0) -> np.ndarray:
    """Return a map twice as fine as the grey picture, with a subject at ``dx`` grey pixels from its place."""
    saliency = np.zeros((320, 320), np.float32)
    saliency[100:200, round(100 + 2 * dx) : round(200 + 2 * dx)] = 1
    return saliency


def test_psnr_agrees_with_scikit_image() -> None:
    from skimage.metrics import peak_signal_noise_ratio

    noisy = np.clip(STILL.astype(int) + RNG.integers(-9, 10, STILL.shape), 0, 255).astype(np.uint8)
    assert psnr(STILL, noisy) == pytest.approx(peak_signal_noise_ratio(STILL, noisy))
    assert psnr(STILL, STILL) == math.inf


def test_small_grey_averages_noise() -> None:
    noisy = (128 + RNG.normal(0, 10, (640, 640, 3))).astype(np.uint8)
    grey = small_grey(noisy)
    assert grey.shape == (160, 160)
    assert grey.std() < 3


def test_a_plain_average_is_the_weighted_sum() -> None:
    maps = [RNG.random((5, 6), np.float32) for _ in range(6)]
    average = PlainAverage(0.4)
    shown = [average.add(saliency, STILL) for saliency in maps]
    weights = np.array([0.6**5, *(0.4 * 0.6**k for k in range(4, -1, -1))])
    np.testing.assert_allclose(shown[-1], np.tensordot(weights, maps, 1), atol=1e-6)


@pytest.mark.parametrize("kind", [PlainAverage, MotionAverage, FlowAverage])
def test_a_held_frame_counts_in_the_next_weight(kind: type[PlainAverage]) -> None:
    old, new = np.zeros((320, 320), np.float32), np.ones((320, 320), np.float32)
    average = kind(0.3)
    average.add(old, STILL)
    for _ in range(2):
        np.testing.assert_array_equal(average.hold(STILL), old)
    np.testing.assert_allclose(average.add(new, STILL)[20:-20, 20:-20], 1 - 0.7**3, atol=1e-5)


@pytest.mark.parametrize("kind", [PlainAverage, MotionAverage, FlowAverage])
def test_what_was_shown_and_given_stays(kind: type[PlainAverage]) -> None:
    maps = [RNG.random((32, 48), np.float32) for _ in range(5)]
    before = [saliency.copy() for saliency in maps]
    average, shown, kept = kind(0.3), [], []
    for k, saliency in enumerate(maps):
        shown.append(average.add(saliency, _seen(k)))
        kept.append(shown[-1].copy())
    np.testing.assert_array_equal(maps, before)
    np.testing.assert_array_equal(shown, kept)
    assert all(saliency.min() >= 0 and saliency.max() <= 1 for saliency in shown)


@pytest.mark.parametrize("kind", [MotionAverage, FlowAverage])
def test_where_the_scene_changed_the_new_map_is_taken(kind: type[PlainAverage]) -> None:
    changed = STILL.copy()
    changed[:80] = 255 - changed[:80]
    average = kind(0.25)
    average.add(np.zeros((320, 320), np.float32), STILL)
    shown = average.add(np.ones((320, 320), np.float32), changed)
    assert shown[:120].mean() > 0.9
    np.testing.assert_allclose(shown[200:], 0.25, atol=0.02)


def test_noise_is_not_motion() -> None:
    noisy = np.clip(STILL + RNG.normal(0, 2, STILL.shape), 0, 255).astype(np.uint8)
    average = MotionAverage(0.25)
    average.add(np.zeros((320, 320), np.float32), STILL)
    assert average.add(np.ones((320, 320), np.float32), noisy).mean() < 0.3


def test_flow_moves_a_held_map_along() -> None:
    average = FlowAverage(0.3)
    average.add(_square(), STILL)
    for dx in range(2, 11, 2):
        shown = average.hold(_seen(dx))
    assert np.abs(shown - _square(10)).mean() < 0.15 * np.abs(_square() - _square(10)).mean()


def test_flow_leaves_no_trail() -> None:
    averages = PlainAverage(0.3), FlowAverage(0.3)
    for dx in range(0, 13, 3):
        plain, along = (average.add(_square(dx), _seen(dx)) for average in averages)
    truth = _square(12)
    assert np.abs(along - truth).mean() < 0.15 * np.abs(plain - truth).mean()
