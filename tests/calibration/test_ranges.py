"""Ranges are those of the values that torch computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import parser

from edgesod.calibration.images import CalibrationImages
from edgesod.calibration.ranges import Spread, activation_ranges
from edgesod.calibration.table import CalibrationTable
from edgesod.errors import CheckFailed, InputError
from edgesod.recipe import Recipe

from .conftest import Chain


def percentiles(values: NDArray[np.float32], percent: float) -> tuple[float, float]:
    """Return what leaves out at most (100 − percent)/2 % of the values at either end."""
    beyond = (100 - percent) / 2
    return float(np.percentile(values, beyond, method="lower")), float(np.percentile(values, 100 - beyond, method="higher"))


def test_ranges_are_those_of_the_values_torch_computes(
    chain: Chain, chain_onnx: Path, table: CalibrationTable, inputs: list[NDArray[np.float32]]
) -> None:
    with torch.no_grad():
        firsts = torch.cat([chain.first(torch.from_numpy(image)) for image in inputs]).numpy()
    name = next(node.output[0] for node in onnx.load(chain_onnx).graph.node if node.op_type == "Conv")
    bin_width = float(np.abs(firsts).max()) / 2048
    assert table.range_of(name, "minmax") == pytest.approx((firsts.min(), firsts.max()), abs=1e-5)
    for percent in (99.9, 99.99, 99.999):
        np.testing.assert_allclose(table.ranges[name][f"percentile-{percent}"], percentiles(firsts, percent), atol=bin_width)


def test_every_float_tensor_has_a_range_input_and_output_included(
    table: CalibrationTable, chain_onnx: Path, inputs: list[NDArray[np.float32]]
) -> None:
    made = {name for node in onnx.load(chain_onnx).graph.node if node.op_type != "Constant" for name in node.output}
    assert set(table.ranges) == made | {"image"}
    assert table.range_of("image", "minmax") == pytest.approx((np.min(inputs), np.max(inputs)), abs=1e-5)
    low, high = table.range_of("saliency", "minmax")
    assert 0 <= low < high <= 1


def test_groups_change_memory_and_not_ranges(
    chain_onnx: Path, photographs: Path, recipe: Recipe, table: CalibrationTable
) -> None:
    steps: list[tuple[int, int | None]] = []
    images = CalibrationImages(photographs, recipe)
    ranges = activation_ranges(chain_onnx, images, lambda *step: steps.append(step), group_bytes=200_000)
    assert ranges.keys() == table.ranges.keys()
    for tensor, by_method in ranges.items():  # another split of the graph may sum in another order
        for method, value in by_method.items():
            assert value == pytest.approx(table.range_of(tensor, method), rel=1e-3, abs=1e-4)
    total = steps[-1][1]
    assert steps == [(k, total) for k in range(1, len(steps) + 1)]
    assert total is not None
    assert total == len(steps) > len(images)


def test_a_spread_keeps_its_percentiles_while_values_grow() -> None:
    generator = np.random.default_rng(0)
    parts = [generator.normal(0, scale, 50_000).astype(np.float32) for scale in (1e-3, 0.1, 1, 30)]
    spread = Spread()
    for part in parts:
        assert spread.add(part.reshape(1, 5, 100, 100))
    values = np.concatenate(parts)
    assert spread.ranges()["minmax"] == pytest.approx((values.min(), values.max()))
    expected = percentiles(values, 99.9)
    np.testing.assert_allclose(spread.ranges()["percentile-99.9"], expected, atol=np.abs(values).max() / 2048)


def test_ranges_never_go_beyond_the_extremes() -> None:
    spread = Spread()
    spread.add(np.full((1, 1, 4, 4), 3, np.float32))
    assert set(spread.ranges().values()) == {(3.0, 3.0)}
    silent = Spread()
    silent.add(np.zeros((1, 1, 4, 4), np.float32))
    assert set(silent.ranges().values()) == {(0.0, 0.0)}


def test_values_that_are_not_finite_name_tensor_and_image(photographs: Path, recipe: Recipe, tmp_path: Path) -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["":17]> g (float[1,3,64,96] image) => (float[1,3,64,96] saliency)'
        "{ root = Sqrt(image) saliency = Sigmoid(root) }"
    )
    onnx.save(model, tmp_path / "root.onnx")
    with pytest.raises(CheckFailed, match=r"'root'.*cat\.png"):
        activation_ranges(tmp_path / "root.onnx", CalibrationImages(photographs, recipe))


def test_another_size_than_the_networks_is_an_input_error(chain_onnx: Path, photographs: Path, recipe: Recipe) -> None:
    other = recipe.model_copy(update={"size_hw": (32, 32)})
    with pytest.raises(InputError, match=r"\(1, 3, 32, 32\)"):
        activation_ranges(chain_onnx, CalibrationImages(photographs, other))


def test_a_network_without_fixed_shape_is_an_input_error(photographs: Path, recipe: Recipe, tmp_path: Path) -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["":17]> g (float[1,3,H,W] image) => (float[1,3,H,W] saliency)'
        "{ saliency = Sigmoid(image) }"
    )
    onnx.save(model, tmp_path / "free.onnx")
    with pytest.raises(InputError, match="fixed shape"):
        activation_ranges(tmp_path / "free.onnx", CalibrationImages(photographs, recipe))


@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_a_broken_onnx_is_an_input_error(photographs: Path, recipe: Recipe, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.onnx"):
        activation_ranges(path, CalibrationImages(photographs, recipe))
