"""Frames become the tensors that NumPy and torch would make of them, and what is no frame is refused."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from edgesod.errors import InputError
from edgesod.processing.preprocess import as_bgr, preprocess
from edgesod.processing.resize import resize_image
from edgesod.recipe import Preprocessing, Recipe

RECIPE = Recipe(model="tiny", size_hw=(64, 96), precision="fp32")
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def _photograph() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[:300, :, ::-1])


def _with(**changes: object) -> Recipe:
    return RECIPE.model_copy(update={"preprocessing": Preprocessing(**changes)})


def test_normalises_like_numpy() -> None:
    image = _photograph()
    small = resize_image(image, (64, 96)).astype(np.float64)
    expected = ((small[:, :, ::-1] / 255 - MEAN) / STD).transpose(2, 0, 1)[None]
    tensor = preprocess(image, RECIPE)
    assert tensor.shape == (1, 3, 64, 96)
    assert tensor.dtype == np.float32
    np.testing.assert_allclose(tensor, expected, atol=1e-6)


def test_linear_resize_agrees_with_torch() -> None:
    torch = pytest.importorskip("torch")
    image = _photograph()
    recipe = _with(resize="linear", divide_by="1", mean=(0, 0, 0), std=(1, 1, 1))
    rgb = torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(rgb, (64, 96), mode="bilinear", align_corners=False).numpy()
    assert np.abs(preprocess(image, recipe) - expected).max() <= 1  # both round to a grey level


def test_channel_order_is_the_recipes() -> None:
    image = np.full((64, 96, 3), (10, 20, 30), np.uint8)
    plain = {"divide_by": "1", "mean": (0, 0, 0), "std": (1, 1, 1)}
    assert preprocess(image, _with(colour="RGB", **plain))[0, :, 0, 0].tolist() == [30, 20, 10]
    assert preprocess(image, _with(colour="BGR", **plain))[0, :, 0, 0].tolist() == [10, 20, 30]


def test_mean_and_std_are_in_tensor_order() -> None:
    image = np.full((64, 96, 3), (0, 0, 255), np.uint8)
    recipe = _with(mean=(1, 0, 0), std=(1, 1, 1))
    assert np.abs(preprocess(image, recipe)).max() == 0


def test_dividing_by_the_largest_value() -> None:
    dark = _photograph() // 4
    small = resize_image(dark, (64, 96))[:, :, ::-1].astype(np.float64)
    expected = ((small / small.max() - MEAN) / STD).transpose(2, 0, 1)[None]
    np.testing.assert_allclose(preprocess(dark, _with(divide_by="max")), expected, atol=1e-6)


@pytest.mark.parametrize("divisor", ["255", "max", "1"])
def test_black_is_finite(divisor: str) -> None:
    tensor = preprocess(np.zeros((50, 50, 3), np.uint8), _with(divide_by=divisor))
    np.testing.assert_allclose(tensor[0, :, 5, 5], -MEAN / STD, atol=1e-6)


def test_writes_to_out() -> None:
    image, out = _photograph(), np.empty((1, 3, 64, 96), np.float32)
    assert preprocess(image, RECIPE, out) is out
    np.testing.assert_array_equal(out, preprocess(image, RECIPE))


@pytest.mark.parametrize(
    "out",
    [np.empty((1, 3, 64, 95), np.float32), np.empty((1, 3, 64, 96)), np.empty((1, 3, 64, 192), np.float32)[..., ::2]],
    ids=["shape", "dtype", "strides"],
)
def test_out_that_does_not_fit(out: np.ndarray) -> None:
    with pytest.raises(InputError, match="out"):
        preprocess(_photograph(), RECIPE, out)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 20_000, 3), (20_000, 2, 3), (3, 5), (7, 9, 4)])
def test_any_size(shape: tuple[int, ...]) -> None:
    tensor = preprocess(np.full(shape, 255, np.uint8), RECIPE)
    np.testing.assert_allclose(tensor[0, :, 10, 10], (1 - MEAN) / STD, atol=1e-6)


def test_views_are_read_as_they_look() -> None:
    image = _photograph()
    rgb_view = image[:, ::2, ::-1]
    np.testing.assert_array_equal(preprocess(rgb_view, RECIPE), preprocess(rgb_view.copy(), RECIPE))


def test_a_frame_is_passed_through() -> None:
    image = _photograph()
    assert as_bgr(image) is image


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1)])
def test_grey_becomes_three_equal_channels(shape: tuple[int, ...]) -> None:
    grey = np.arange(20, dtype=np.uint8).reshape(shape)
    np.testing.assert_array_equal(as_bgr(grey), np.repeat(grey.reshape(4, 5, 1), 3, 2))


def test_alpha_is_dropped() -> None:
    bgra = np.random.default_rng(0).integers(0, 256, (4, 5, 4), np.uint8)
    np.testing.assert_array_equal(as_bgr(bgra), bgra[:, :, :3])


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 4)])
def test_sixteen_bits_are_scaled(shape: tuple[int, ...]) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, shape, np.uint16)
    deep.flat[0], deep.flat[1] = 0, 65535
    expected = as_bgr(np.round(deep / 257).astype(np.uint8))
    np.testing.assert_array_equal(as_bgr(deep), expected)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (None, "NoneType"),
        ("photo.jpg", "str"),
        ([[1, 2], [3, 4]], "list"),
        (np.empty((0, 0, 3), np.uint8), "no pixels"),
        (np.empty((0, 5), np.uint8), "no pixels"),
        (np.zeros((4, 5, 2), np.uint8), r"\(4, 5, 2\)"),
        (np.zeros((4, 5, 0), np.uint8), r"\(4, 5, 0\)"),
        (np.zeros((2, 4, 5, 3), np.uint8), r"\(2, 4, 5, 3\)"),
        (np.zeros(5, np.uint8), r"\(5,\)"),
        (np.zeros((4, 5, 3), np.float32), "float32"),
        (np.zeros((4, 5, 3), bool), "bool"),
        (np.zeros((4, 5, 3), np.int64), "int64"),
        (np.zeros((4, 5, 3), object), "object"),
    ],
)
def test_what_is_no_picture(image: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        preprocess(image, RECIPE)  # type: ignore[arg-type]
