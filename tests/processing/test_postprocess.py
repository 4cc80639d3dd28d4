"""Output tensors become maps and masks at frame size; broken ones are errors, never empty masks."""

from __future__ import annotations

import numpy as np
import pytest

from edgesod.errors import CheckFailed, InputError
from edgesod.processing.postprocess import postprocess
from edgesod.recipe import Postprocessing, Recipe

RECIPE = Recipe(model="tiny", size_hw=(4, 6), precision="fp32")
STRETCH = RECIPE.model_copy(update={"postprocessing": Postprocessing(stretch=True, threshold=0.25)})


def _output(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((1, 1, 4, 6), np.float32)


def test_map_and_mask() -> None:
    output = _output()
    result = postprocess(output, RECIPE, (4, 6))
    np.testing.assert_array_equal(result.map_hw, output[0, 0])
    np.testing.assert_array_equal(result.mask, np.where(output[0, 0] >= 0.5, 255, 0))
    assert postprocess(output, RECIPE, (40, 30)).mask.shape == (40, 30)


def test_the_map_outlives_the_buffer() -> None:
    output = _output()
    before = output[0, 0].copy()
    result = postprocess(output, RECIPE, (4, 6))
    output[:] = 0
    np.testing.assert_array_equal(result.map_hw, before)


def test_clips() -> None:
    output = np.float32([[[[-0.5, 0.25], [1.5, 1.0]]]])
    assert postprocess(output, RECIPE, (2, 2)).map_hw.tolist() == [[0, 0.25], [1, 1]]


def test_stretch_fills_the_range() -> None:
    output = _output() * np.float32(0.1) + np.float32(0.3)
    result = postprocess(output, STRETCH, (4, 6))
    expected = (output[0, 0] - output.min()) / (output.max() - output.min())
    np.testing.assert_allclose(result.map_hw, expected, atol=1e-6)
    assert (result.map_hw.min(), result.map_hw.max()) == (0, 1)
    assert result.threshold == 0.25


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_stretching_a_flat_map_gives_nothing(value: float) -> None:
    result = postprocess(np.full((1, 1, 4, 6), value, np.float32), STRETCH, (4, 6))
    assert result.map_hw.max() == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(value: float) -> None:
    output = _output()
    output[0, 0, 1, 2] = value
    with pytest.raises(CheckFailed, match="1 of 24"):
        postprocess(output, RECIPE, (4, 6))


@pytest.mark.parametrize("shape", [(1, 2, 4, 6), (2, 1, 4, 6), (4, 6)])
def test_not_one_map(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="shape"):
        postprocess(np.zeros(shape, np.float32), RECIPE, (4, 6))
