"""Edges are refined as plain NumPy does it, and to where the frame has them."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.ndimage import uniform_filter

from edgesod.processing.guided import refine
from edgesod.types import Result


def test_agrees_with_floats_at_map_size() -> None:
    """At the map's own size there is nothing finer than the map, so that nothing is added."""
    rng = np.random.default_rng(0)
    saliency = rng.random((30, 40), np.float32)
    image = rng.integers(0, 256, (30, 40, 3), np.uint8)
    np.testing.assert_allclose(refine(saliency, image), saliency, atol=1e-6)


def test_agrees_with_the_formula() -> None:
    rng = np.random.default_rng(1)
    blobs = cv2.GaussianBlur(rng.normal(0, 1, (60, 80)), (0, 0), 2)
    image = np.repeat(np.where(blobs > 0, 220, 30).astype(np.uint8)[:, :, None], 3, 2)
    saliency = cv2.resize((blobs > 0).astype(np.float32), (40, 30), interpolation=cv2.INTER_AREA)
    radius, epsilon = 3, 1e-3
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float64)
    small = np.round(grey.reshape(30, 2, 40, 2).mean((1, 3)))  # halving averages blocks of four

    def mean(values: np.ndarray) -> np.ndarray:
        return uniform_filter(values, 2 * radius + 1, mode="reflect")

    guide, s = small / 255, saliency.astype(np.float64)
    slope = (mean(guide * s) - mean(guide) * mean(s)) / (mean(guide**2) - mean(guide) ** 2 + epsilon)
    large = [cv2.resize(x, (80, 60), interpolation=cv2.INTER_LINEAR) for x in (s, mean(slope), small)]
    expected = np.clip(large[0] + large[1] * (grey - large[2]) / 255, 0, 1)
    refined = refine(saliency, image, radius=radius, epsilon=epsilon)
    np.testing.assert_allclose(refined, expected, atol=0.02)  # halves and strips are rounded to grey levels
    assert np.abs(expected - large[0]).max() > 0.05


def test_edges_move_to_where_the_frame_has_them() -> None:
    y, x = np.mgrid[:480, :640]
    truth = (np.hypot((y - 240) * 1.3, x - 330) + 12 * np.sin(x / 17) < 150).astype(np.float32)
    image = np.repeat((60 + 120 * truth)[:, :, None], 3, 2) + np.random.default_rng(0).normal(0, 3, (480, 640, 3))
    saliency = cv2.resize(truth, (80, 80), interpolation=cv2.INTER_AREA)
    frame = np.clip(image, 0, 255).astype(np.uint8)
    stretched = Result(saliency, (480, 640)).saliency
    refined = refine(saliency, frame)
    assert refined.shape == (480, 640)
    assert refined.dtype == np.float32
    assert np.abs(refined - truth).mean() < 0.6 * np.abs(stretched - truth).mean()
    assert ((refined >= 0.5) != truth).mean() < 0.6 * ((stretched >= 0.5) != truth).mean()
