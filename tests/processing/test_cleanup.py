"""Cleaning up against SciPy's labels, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from edgesod.processing.cleanup import clean

EIGHT = np.ones((3, 3))


def _speckled(seed: int, smooth: float = 1.5) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((60, 80)), smooth)
    return ((noise - noise.min()) / (noise.max() - noise.min())).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [0.4, 0.5, 0.6])
def test_hysteresis_keeps_what_touches_the_high_level(seed: int, threshold: float) -> None:
    saliency = _speckled(seed)
    labels, _ = ndimage.label(saliency >= threshold - 0.1, EIGHT)
    expected = np.isin(labels, np.unique(labels[saliency >= threshold + 0.1])) & (labels > 0)
    tidy = clean(saliency, threshold, hysteresis=0.1)
    np.testing.assert_array_equal(tidy >= threshold, expected)
    assert 0 < expected.mean() < 1
    assert tidy.min() >= 0
    assert tidy.max() <= 1


def test_hysteresis_keeps_the_order_of_saliencies() -> None:
    ramp = np.linspace(0, 1, 200, dtype=np.float32)[None].repeat(3, 0)
    tidy = clean(ramp, 0.5, hysteresis=0.2)
    assert (np.diff(tidy[1]) >= 0).all()
    np.testing.assert_allclose(tidy[1, [0, -1]], [0, 1])


@pytest.mark.parametrize("seed", range(4))
def test_small_pieces_go_and_large_ones_stay(seed: int) -> None:
    saliency, least = _speckled(seed), 40
    labels, number = ndimage.label(saliency >= 0.5, EIGHT)
    sizes = ndimage.sum_labels(np.ones_like(saliency), labels, range(number + 1))
    large = (sizes >= least)[labels] & (labels > 0)
    tidy = clean(saliency, 0.5, min_area=least / saliency.size)
    np.testing.assert_array_equal(tidy >= 0.5, large)
    assert (sizes[1:] < least).any(), "nothing was there to be removed"
    np.testing.assert_array_equal(tidy[large], saliency[large])


@pytest.mark.parametrize("seed", range(4))
def test_small_holes_are_filled(seed: int) -> None:
    saliency = 1 - _speckled(seed) * np.float32(0.8)  # mostly subject, with holes
    inside = saliency >= 0.5
    holes = ndimage.binary_fill_holes(inside) & ~inside
    labels, number = ndimage.label(holes)
    sizes = ndimage.sum_labels(np.ones_like(saliency), labels, range(number + 1))
    most = float(np.median(sizes[1:]))
    small = (sizes <= most)[labels] & (labels > 0)
    np.testing.assert_array_equal(clean(saliency, 0.5, max_hole=most / saliency.size) >= 0.5, inside | small)
    assert 0 < small.sum() < holes.sum()


def test_the_soft_edge_of_a_speck_goes_with_it_and_that_of_the_subject_stays() -> None:
    y, x = np.mgrid[:80, :100]
    subject, speck = (
        np.clip((20 - np.hypot(y - 40, x - 35)) / 6 + 0.5, 0, 1),
        np.clip((3 - np.hypot(y - 40, x - 85)) / 6 + 0.5, 0, 1),
    )
    tidy = clean(np.maximum(subject, speck).astype(np.float32), 0.5, min_area=0.01)
    np.testing.assert_allclose(tidy, subject, atol=1e-6)


def test_nothing_to_do_is_not_a_copy() -> None:
    saliency = np.zeros((9, 9), np.float32)
    saliency[2:7, 2:7] = 1
    assert clean(saliency, 0.5, min_area=0.01, max_hole=0.01) is saliency
    for value in (0, 1):
        flat = np.full((9, 9), value, np.float32)
        np.testing.assert_array_equal(clean(flat, 0.5, hysteresis=0.1, min_area=0.1, max_hole=0.1), flat)


def test_the_map_given_is_left_as_it_was() -> None:
    saliency = _speckled(0)
    before = saliency.copy()
    clean(saliency, 0.5, hysteresis=0.1, min_area=0.01, max_hole=0.01)
    np.testing.assert_array_equal(saliency, before)
