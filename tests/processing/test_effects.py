"""Effects against plain floating-point arithmetic, and at sizes where pixels run out."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from edgesod.errors import InputError, UsageError
from edgesod.processing.effects import EFFECTS, apply_effect, composite
from edgesod.types import Result

HEIGHT, WIDTH = 150, 200


def _image() -> np.ndarray:
    return np.ascontiguousarray(data.coffee()[:HEIGHT, :WIDTH, ::-1])


def _disc() -> Result:
    """A subject in the middle: saliency falls from 1 to 0 within a few pixels."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot(y - HEIGHT / 2, x - WIDTH / 2)
    return Result(np.clip((50 - distance) / 8 + 0.5, 0, 1).astype(np.float32), (HEIGHT, WIDTH))


def _flat(value: float) -> Result:
    return Result(np.full((32, 32), value, np.float32), (HEIGHT, WIDTH))


def test_names() -> None:
    assert set(EFFECTS) == {"overlay", "mask", "cutout", "blur", "green"}


@pytest.mark.parametrize("name", EFFECTS)
def test_shape_and_frame(name: str) -> None:
    image = _image()
    before = image.copy()
    picture = apply_effect(name, image, _disc())
    assert picture.shape == (HEIGHT, WIDTH, 4 if name == "cutout" else 3)
    assert picture.dtype == np.uint8
    assert not np.shares_memory(picture, image)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", EFFECTS)
@pytest.mark.parametrize("size_hw", [(1, 1), (1, 20_000), (3000, 1), (2, 3)])
@pytest.mark.parametrize("saliency", [0.0, 1.0])
def test_any_size(name: str, size_hw: tuple[int, int], saliency: float) -> None:
    image = np.full((*size_hw, 3), 100, np.uint8)
    picture = apply_effect(name, image, Result(np.full((32, 32), saliency, np.float32), size_hw))
    assert picture.shape[:2] == size_hw


@pytest.mark.parametrize("name", ["overlay", "blur"])
def test_overlay_without_a_subject_changes_nothing(name: str) -> None:
    image = _image()
    picture = apply_effect(name, image, _flat(0.0 if name == "overlay" else 1.0))
    np.testing.assert_allclose(picture.astype(int), image.astype(int), atol=1)


def test_overlay_tints_the_subject_and_leaves_the_rest() -> None:
    image, result = _image(), _disc()
    picture = apply_effect("overlay", image, result).astype(int)
    outside = result.saliency == 0
    np.testing.assert_allclose(picture[outside], image[outside].astype(int), atol=1)
    core = np.s_[65:85, 90:110]
    tint = (picture[core] - 0.55 * image[core]) / 0.45
    assert np.abs(tint - tint.mean((0, 1))).max() < 5  # one colour, through 8-bit rounding


def test_mask_is_the_mask() -> None:
    result = _disc()
    picture = apply_effect("mask", _image(), result)
    np.testing.assert_array_equal(picture, np.repeat(result.mask[:, :, None], 3, 2))


def test_cutout_keeps_the_frame_and_has_soft_edges() -> None:
    image, result = _image(), _disc()
    cutout = apply_effect("cutout", image, result)
    np.testing.assert_array_equal(cutout[:, :, :3], image)
    alpha = cutout[:, :, 3]
    assert (alpha[result.saliency == 0] == 0).all()
    assert (alpha[result.saliency == 1] == 255).all()
    assert ((alpha > 0) & (alpha < 255)).sum() > 100
    order = np.argsort(result.saliency, axis=None)
    assert (np.diff(alpha.ravel()[order].astype(int)) >= 0).all()  # more salient is never less opaque


def test_composite_agrees_with_floats() -> None:
    bgra = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
    colour = (10, 200, 90)
    share = bgra[:, :, 3:] / 255
    expected = bgra[:, :, :3] * share + np.array(colour) * (1 - share)
    assert np.abs(composite(bgra, colour) - expected).max() <= 1


def test_green_is_the_cutout_on_green() -> None:
    image, result = _image(), _disc()
    picture = apply_effect("green", image, result)
    backdrop = picture[0, 0]
    assert backdrop.argmax() == 1
    expected = composite(apply_effect("cutout", image, result), tuple(int(v) for v in backdrop))
    np.testing.assert_array_equal(picture, expected)


def test_blur_keeps_the_subject_sharp_and_out_of_the_background() -> None:
    image, result = np.full((HEIGHT, WIDTH, 3), 40, np.uint8), _disc()
    image[result.saliency >= 0.5] = 250
    rng = np.random.default_rng(0)
    background = result.saliency == 0
    image[background] += rng.integers(0, 20, (int(background.sum()), 3), np.uint8)
    picture = apply_effect("blur", image, result)
    subject = result.saliency == 1
    np.testing.assert_allclose(picture[subject].astype(int), 250, atol=1)
    assert picture[background].std() < image[background].std() / 2
    assert picture[background].max() < 100  # a plain blur would spread the bright subject over its surroundings


def test_refusals() -> None:
    with pytest.raises(UsageError, match="sepia"):
        apply_effect("sepia", _image(), _disc())
    with pytest.raises(InputError, match="149"):
        apply_effect("overlay", _image()[:149], _disc())
    with pytest.raises(InputError, match="float32"):
        apply_effect("overlay", _image().astype(np.float32), _disc())
