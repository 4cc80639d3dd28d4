"""The FP16 range check says what overflows, and what it says stays in FP32 does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser
from onnx.reference import ReferenceEvaluator

from edgesod.calibration import calibrate
from edgesod.calibration.fp16 import write_fp16
from edgesod.calibration.headroom import MARGIN, headroom, without_headroom, write_headroom
from edgesod.calibration.table import CalibrationTable
from edgesod.errors import StaleError
from edgesod.recipe import Recipe

# an image of ±2.6 is made large, then far too large, then small again
OVERFLOWING = """<ir_version: 8, opset_import: ["":17]> g (float[1,3,64,96] image) => (float[1,1,64,96] saliency)
<float[1] much = {500.0}, float[1] more = {100.0}, float[1] less = {0.00002}>
{
  [small] s = Abs(image)
  [large] l = Mul(s, much)
  [huge] h = Mul(l, more)
  [back] b = Mul(h, less)
  [mean] m = ReduceMean <axes = [1], keepdims = 1> (b)
  [end] saliency = Sigmoid(m)
}"""


@pytest.fixture
def overflowing(tmp_path: Path) -> Path:
    onnx.save(parser.parse_model(OVERFLOWING), tmp_path / "overflowing.onnx")
    return tmp_path / "overflowing.onnx"


def test_layers_are_judged_by_what_they_read_and_write(
    overflowing: Path, photographs: Path, recipe: Recipe, inputs: list[np.ndarray]
) -> None:
    table = calibrate(overflowing, recipe, photographs)
    layers = {layer.layer: layer for layer in headroom(overflowing, table)}
    assert list(layers) == ["small", "large", "huge", "back", "mean", "end"]
    largest = max(float(np.abs(image).max()) for image in inputs)
    assert layers["large"].largest == pytest.approx(500 * largest, rel=1e-5)
    assert layers["huge"].largest == pytest.approx(50_000 * largest, rel=1e-5)
    assert layers["huge"].factor == pytest.approx(65504 / (50_000 * largest), rel=1e-5)
    assert {name: layer.verdict for name, layer in layers.items()} == {
        "small": "fits",
        "large": "fits",
        "huge": "stays FP32: overflows",
        "back": "stays FP32: overflows",
        "mean": "fits",
        "end": "fits",
    }


def test_what_stays_in_fp32_keeps_the_engine_finite(
    overflowing: Path, photographs: Path, recipe: Recipe, inputs: list[np.ndarray], tmp_path: Path
) -> None:
    table = calibrate(overflowing, recipe, photographs)
    plain, kept = tmp_path / "plain.onnx", tmp_path / "kept.onnx"
    write_fp16(overflowing, plain)
    write_fp16(overflowing, kept, without_headroom(overflowing, table))
    wanted, unsafe, safe = (_run(path, inputs[0]) for path in (overflowing, plain, kept))
    assert np.abs(unsafe - wanted).max() > 0.01, "FP16 has to fail here, or the test shows nothing"
    np.testing.assert_allclose(safe, wanted, atol=2e-3)


def test_near_the_end_is_not_good_enough(chain_onnx: Path, table: CalibrationTable) -> None:
    assert all(layer.fits for layer in headroom(chain_onnx, table))
    assert without_headroom(chain_onnx, table) == ()
    first = next(iter(headroom(chain_onnx, table)))
    values = table.model_dump()
    output = next(node.output[0] for node in onnx.load(chain_onnx).graph.node if node.name == first.layer)
    values["ranges"][output]["minmax"] = (0.0, 65504 / (MARGIN - 1))
    near = {layer.layer: layer for layer in headroom(chain_onnx, CalibrationTable.model_validate(values))}
    assert near[first.layer].verdict == "stays FP32: near the end"


def test_another_networks_table_is_refused(overflowing: Path, table: CalibrationTable) -> None:
    with pytest.raises(StaleError, match="no minmax range"):
        headroom(overflowing, table)


def test_the_report_is_written_as_a_table(chain_onnx: Path, table: CalibrationTable, tmp_path: Path) -> None:
    layers = headroom(chain_onnx, table)
    write_headroom(layers, tmp_path / "ranges.csv")
    lines = (tmp_path / "ranges.csv").read_text().splitlines()
    assert lines[0] == "layer,op,largest,factor,verdict"
    assert len(lines) == 1 + len(layers)
    assert lines[1].endswith(",fits")


def _run(path: Path, image: np.ndarray) -> np.ndarray:
    # ONNX Runtime computes FP16 in FP32 on a CPU; ONNX's own evaluator computes as it is written
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(ReferenceEvaluator(str(path)).run(None, {"image": image})[0])
