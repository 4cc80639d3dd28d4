"""Effects against plain floating-point arithmetic, and at sizes where pixels run out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage import data

from edgesod.errors import InputError, UsageError
from edgesod.processing.effects import EFFECTS, apply_effect, composite
from edgesod.types import Result

HEIGHT, WIDTH = 150, 200
BEHIND = np.random.default_rng(3).integers(0, 256, (60, 60, 3), np.uint8)


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
    assert set(EFFECTS) == {"overlay", "mask", "cutout", "blur", "green", "replace", "outline", "box"}


@pytest.mark.parametrize("name", EFFECTS)
def test_shape_and_frame(name: str) -> None:
    image = _image()
    before = image.copy()
    picture = apply_effect(name, image, _disc(), BEHIND)
    assert picture.shape == (HEIGHT, WIDTH, 4 if name == "cutout" else 3)
    assert picture.dtype == np.uint8
    assert not np.shares_memory(picture, image)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", EFFECTS)
@pytest.mark.parametrize("size_hw", [(1, 1), (1, 20_000), (3000, 1), (2, 3)])
@pytest.mark.parametrize("saliency", [0.0, 1.0])
def test_any_size(name: str, size_hw: tuple[int, int], saliency: float) -> None:
    image = np.full((*size_hw, 3), 100, np.uint8)
    picture = apply_effect(name, image, Result(np.full((32, 32), saliency, np.float32), size_hw), BEHIND)
    assert picture.shape[:2] == size_hw


@pytest.mark.parametrize(
    ("name", "saliency"), [("overlay", 0.0), ("blur", 1.0), ("outline", 0.0), ("box", 0.0), ("replace", 1.0)]
)
def test_without_a_subject_or_a_background_nothing_changes(name: str, saliency: float) -> None:
    image = _image()
    picture = apply_effect(name, image, _flat(saliency), BEHIND)
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


@pytest.mark.parametrize("effect", ["overlay", "green", "replace", "blur"])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_stretched_maps_agree_with_floats(effect: str, threshold: float) -> None:
    """Only the rectangle around the subject is drawn; seen here where subjects lie apart and at the border."""
    saliency = np.zeros((30, 30), np.float32)
    saliency[0:6, 0:5] = 0.9
    saliency[18:25, 21:30] = np.random.default_rng(0).random((7, 9))
    image, result = _image(), Result(saliency, (HEIGHT, WIDTH), threshold)
    background = np.random.default_rng(4).integers(0, 256, image.shape, np.uint8)
    picture = apply_effect(effect, image, result, background)
    t = np.clip((result.saliency - threshold / 2) * 2, 0, 1)
    alpha = (t * t * (3 - 2 * t))[:, :, None]
    if effect == "blur":
        np.testing.assert_allclose(picture[(alpha > 0.999)[:, :, 0]], image[(alpha > 0.999)[:, :, 0]], atol=2)
        return
    if effect == "overlay":
        alpha, front, back = 0.45 * alpha, np.array([230.0, 40, 255]), image
        differs = np.abs(picture - (front * alpha + back * (1 - alpha))).max(2) > 5
        outline = cv2.dilate(result.mask, np.ones((5, 5))) != cv2.erode(
            result.mask, np.ones((5, 5)), borderType=cv2.BORDER_CONSTANT, borderValue=0
        )  # an outline runs along the frame's border too
        assert not (differs & ~outline).any()
        assert differs.any()
        return
    back = background if effect == "replace" else np.array([64.0, 177, 0])
    np.testing.assert_allclose(picture, image * alpha + back * (1 - alpha), atol=5)


def test_a_background_covers_the_frame_and_keeps_its_aspect() -> None:
    y, x = np.mgrid[:400, :300]
    behind = np.where(np.hypot(y - 200, x - 150)[:, :, None] < 60, 255, 0).astype(np.uint8).repeat(3, 2)
    picture = apply_effect("replace", _image(), _flat(0.0), behind)
    rows, columns = np.nonzero(picture[:, :, 0] > 127)
    assert picture.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_allclose((rows.mean(), columns.mean()), ((HEIGHT - 1) / 2, (WIDTH - 1) / 2), atol=1)
    np.testing.assert_allclose((np.ptp(rows), np.ptp(columns)), 120 * WIDTH / 300, atol=3)  # round as it was


def test_outline_is_on_the_edge_alone() -> None:
    image, result = _image(), _disc()
    changed = (apply_effect("outline", image, result) != image).any(2)
    y, x = np.nonzero(changed)
    distance = np.hypot(y - HEIGHT / 2, x - WIDTH / 2)
    assert 46 < distance.min() < 51
    assert distance.max() < 54
    assert len(np.unique(np.round(np.arctan2(y - HEIGHT / 2, x - WIDTH / 2), 1))) > 60  # all the way round


def test_box_is_the_results() -> None:
    image, result = np.zeros((HEIGHT, WIDTH, 3), np.uint8), _disc()
    picture = apply_effect("box", image, result)
    assert result.box is not None
    x, y, width, height = result.box
    rows, columns = np.nonzero(picture.any(2))
    line = 2
    assert x - line <= columns.min() <= x
    assert x + width - 1 <= columns.max() <= x + width - 1 + line
    assert y - line <= rows.min() <= y
    assert y + height - 1 <= rows.max() <= y + height - 1 + line
    assert picture[HEIGHT // 2, WIDTH // 2].any()


@pytest.mark.parametrize("name", EFFECTS)
def test_pictures_share_no_memory(name: str) -> None:
    image, result = _image(), _disc()
    pictures = [apply_effect(name, image, result, BEHIND) for _ in range(3)]
    assert not any(np.shares_memory(one, other) for one in pictures for other in pictures if one is not other)
    assert not any(np.shares_memory(one, array) for one in pictures for array in (result.mask, result.levels, BEHIND))


def test_refusals() -> None:
    with pytest.raises(UsageError, match="background"):
        apply_effect("replace", _image(), _disc())
    with pytest.raises(UsageError, match="sepia"):
        apply_effect("sepia", _image(), _disc())
    with pytest.raises(InputError, match="149"):
        apply_effect("overlay", _image()[:149], _disc())
    with pytest.raises(InputError, match="float32"):
        apply_effect("overlay", _image().astype(np.float32), _disc())
