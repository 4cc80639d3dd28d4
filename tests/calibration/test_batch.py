"""A network of one image becomes one of many, or the reason why not is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import parser

from edgesod.calibration.batch import free_batch
from edgesod.calibration.qdq import write_half_qdq
from edgesod.calibration.table import CalibrationTable
from edgesod.errors import InputError


def run(path: Path, image: NDArray[np.float32]) -> NDArray[np.float32]:
    output: NDArray[np.float32] = onnxruntime.InferenceSession(path).run(None, {"image": image})[0]
    return output


def write(path: Path, text: str) -> Path:
    onnx.save(parser.parse_model(f'<ir_version: 8, opset_import: ["":17]> g {text}'), path)
    return path


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_images_are_computed_independently(
    chain_onnx: Path, table: CalibrationTable, inputs: list[NDArray[np.float32]], tmp_path: Path, precision: str
) -> None:
    single = chain_onnx
    if precision == "int8":
        single = tmp_path / "half.onnx"
        write_half_qdq(chain_onnx, single, table, "percentile-99.999")
    free_batch(single, tmp_path / "free.onnx", compare=precision == "fp32")
    model = onnx.load(tmp_path / "free.onnx")
    assert [entry.type.tensor_type.shape.dim[0].dim_param for entry in (*model.graph.input, *model.graph.output)] == [
        "batch"
    ] * 2
    assert model.opset_import == onnx.load(single).opset_import
    together = run(tmp_path / "free.onnx", np.concatenate(inputs))
    for k, image in enumerate(inputs):
        expected = run(single, image)
        assert np.abs(together[k] - expected[0]).mean() < 0.01 * expected.std()


def test_resizing_by_size_becomes_resizing_by_factor_where_that_is_exact(tmp_path: Path) -> None:
    whole = write(
        tmp_path / "whole.onnx",
        """(float[1,3,4,6] image) => (float[1,3,8,18] saliency) <int64[4] sizes = {1,3,8,18}>
        { saliency = Resize <mode="linear"> (image, , , sizes) }""",
    )
    free_batch(whole, tmp_path / "free.onnx")
    (resize,) = onnx.load(tmp_path / "free.onnx").graph.node
    assert len(resize.input) == 3
    image = np.random.default_rng(0).normal(0, 1, (1, 3, 4, 6)).astype(np.float32)
    np.testing.assert_array_equal(run(tmp_path / "free.onnx", image), run(whole, image))
    odd = write(
        tmp_path / "odd.onnx",
        """(float[1,3,4,10] image) => (float[1,3,8,19] saliency) <int64[4] sizes = {1,3,8,19}>
        { saliency = Resize <mode="linear"> (image, , , sizes) }""",
    )
    with pytest.raises(InputError, match="no whole factor") as caught:
        free_batch(odd, tmp_path / "free.onnx")
    assert "multiple of 32" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        """(float[1,3,4,4] image) => (float[1,3,4,4] saliency) <int64[4] shape = {1,3,4,4}>
        { saliency = Reshape (image, shape) }""",
        """(float[1,3,4,4] image) => (float[1,3,4,4] saliency)
        { mean = ReduceMean <axes=[0], keepdims=1> (image)
          saliency = Sub (image, mean) }""",
    ],
)
def test_a_batch_that_is_written_in_otherwise_is_refused(tmp_path: Path, text: str) -> None:
    single = write(tmp_path / "single.onnx", text)
    with pytest.raises(InputError, match="cannot be freed") as caught:
        free_batch(single, tmp_path / "free.onnx")
    assert "--batch" in caught.value.hint
    assert not (tmp_path / "free.onnx").exists()
