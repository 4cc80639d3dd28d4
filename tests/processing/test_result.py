"""What a result says about its subject, against scikit-image at frame size."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import label, regionprops

from edgesod.types import Result

MAP_HW, SIZE_HW = (40, 50), (300, 425)


def _blobs(*blobs: tuple[float, float, float]) -> np.ndarray:
    """Return a map of discs, each with x, y and radius in the map's pixels."""
    y, x = np.mgrid[: MAP_HW[0], : MAP_HW[1]]
    discs = [np.clip((radius - np.hypot(x - cx, y - cy)) / 3 + 0.5, 0, 1) for cx, cy, radius in blobs]
    return np.max(discs, 0).astype(np.float32)


@pytest.mark.parametrize("blobs", [((20, 15, 8),), ((8, 8, 4), (34, 25, 9)), ((0, 0, 12),), ((49, 39, 10), (5, 30, 3))])
def test_box_and_centroid_are_the_largest_subjects(blobs: tuple[tuple[float, float, float], ...]) -> None:
    result = Result(_blobs(*blobs), SIZE_HW)
    largest = max(regionprops(label(result.mask > 0, connectivity=2)), key=lambda region: region.area)
    top, left, bottom, right = largest.bbox
    assert result.box is not None
    assert result.centroid is not None
    x, y, width, height = result.box
    pixel = max(SIZE_HW[1] / MAP_HW[1], SIZE_HW[0] / MAP_HW[0])
    np.testing.assert_allclose((x, y, x + width, y + height), (left, top, right, bottom), atol=pixel)
    np.testing.assert_allclose(result.centroid, largest.centroid[::-1], atol=pixel / 2)
    assert x >= 0
    assert y >= 0
    assert x + width <= SIZE_HW[1]
    assert y + height <= SIZE_HW[0]


def test_at_frame_size_they_are_exact() -> None:
    saliency = np.zeros(SIZE_HW, np.float32)
    saliency[20:51, 100:181] = 0.9
    saliency[200:210, 5:10] = 1
    result = Result(saliency, SIZE_HW)
    assert result.box == (100, 20, 81, 31)
    assert result.centroid == (140, 35)


def test_without_a_subject_there_is_neither() -> None:
    result = Result(np.full(MAP_HW, 0.49, np.float32), SIZE_HW)
    assert (result.box, result.centroid) == (None, None)


def test_all_of_the_frame() -> None:
    result = Result(np.ones(MAP_HW, np.float32), SIZE_HW)
    assert result.box == (0, 0, SIZE_HW[1], SIZE_HW[0])
    assert result.centroid == ((SIZE_HW[1] - 1) / 2, (SIZE_HW[0] - 1) / 2)


def test_levels_are_the_saliency_in_256_steps() -> None:
    result = Result(np.random.default_rng(0).random(MAP_HW, np.float32), SIZE_HW)
    assert np.abs(result.levels - result.saliency * 255).max() < 1.5
    assert (result.levels.dtype, result.levels.shape) == (np.uint8, SIZE_HW)


def test_results_share_no_memory() -> None:
    results = [Result(np.full(MAP_HW, value, np.float32), SIZE_HW) for value in (0.2, 0.8)]
    masks = [result.mask for result in results]
    del results
    again = Result(np.full(MAP_HW, 0.9, np.float32), SIZE_HW).mask
    assert [mask.max() for mask in (*masks, again)] == [0, 255, 255]
    assert not np.shares_memory(masks[0], again)
