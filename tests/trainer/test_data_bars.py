"""What stands in front of a training picture hides it and is no part of the subject."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgesod.processing.pictures import photograph
from trainer.data.bars import draw_bars
from trainer.data.transforms import Augmentation, augment

WHOLE = np.full((160, 200), 255, np.uint8)


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    return np.ascontiguousarray(cv2.resize(photograph("cat"), (200, 160), interpolation=cv2.INTER_AREA)[:, :, ::-1])


def test_the_mask_is_empty_where_the_picture_is_hidden_and_only_there(picture: NDArray[np.uint8]) -> None:
    hidden_shares = []
    for seed in range(60):
        image, mask = draw_bars(picture, WHOLE, np.random.default_rng(seed))
        np.testing.assert_array_equal(image[mask == 255], picture[mask == 255])
        if (mask == 0).any():
            assert np.mean((image != picture).any(axis=-1)[mask == 0]) > 0.97  # a bar's colour may be the picture's by chance
        hidden_shares.append(np.mean(mask == 0))
    assert 0.02 < np.mean(hidden_shares) < 0.2
    assert max(hidden_shares) <= 0.4


def test_bars_are_upright_and_come_in_from_an_edge(picture: NDArray[np.uint8]) -> None:
    for seed in range(60):
        _, mask = draw_bars(picture, WHOLE, np.random.default_rng(seed))
        count, labels = cv2.connectedComponents((mask < 128).astype(np.uint8), connectivity=8)
        for label in range(1, count):
            rows, columns = np.nonzero(labels == label)
            assert {rows.min(), rows.max()} & {0, 159} or {columns.min(), columns.max()} & {0, 199}
            assert np.ptp(rows) > 30 or {columns.min(), columns.max()} & {0, 199}


def test_most_of_the_subject_stays_in_sight(picture: NDArray[np.uint8]) -> None:
    mask = np.zeros_like(WHOLE)
    cv2.ellipse(mask, (100, 80), (14, 20), 0, 0, 360, 255, -1)
    shares, left_alone = [], 0
    for seed in range(300):
        image, seen = draw_bars(picture, mask, np.random.default_rng(seed))
        shares.append(seen.sum() / mask.sum())
        assert (seen <= mask).all()
        left_alone += image is picture and seen is mask
    assert min(shares) >= 0.6 - 1e-3
    assert min(shares) < 0.9  # bars do come in front of it
    assert 0 < left_alone < 100  # and where they would hide too much, both stay as they were


def test_a_recipe_says_how_often(picture: NDArray[np.uint8]) -> None:
    still = {"min_crop": 1.0, "flip": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "grey": 0.0}
    for bars, least, most in ((0.0, 0, 0), (0.35, 0.15, 0.5), (1.0, 0.9, 1)):
        options = Augmentation.model_validate(still | {"bars": bars})
        masks = [augment(picture, WHOLE, 96, options, np.random.default_rng(seed))[1] for seed in range(100)]
        assert least <= np.mean([(mask < 255).any() for mask in masks]) <= most


def test_where_there_are_no_bars_older_recipes_see_the_pictures_they_saw(picture: NDArray[np.uint8]) -> None:
    """The colours' random numbers come after: one number drawn for bars that are not asked for would shift them."""
    drawn = np.random.default_rng(7)
    augment(picture, WHOLE, 96, Augmentation(min_crop=1.0), drawn)
    counted = np.random.default_rng(7)
    counted.integers(0, 1, 4)  # not reached by a draw: a range of one value takes none
    for _ in range(2):  # crop height, crop width
        counted.uniform(1.0, 1.0)
    counted.random(2)  # flips
    counted.random(4)  # brightness, contrast, saturation, grey
    assert drawn.random() == counted.random()
