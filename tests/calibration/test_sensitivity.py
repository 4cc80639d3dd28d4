"""Sensitivity finds the layer that suffers, and measures what a file with that layer alone quantised does."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

from edgesod.calibration.images import CalibrationImages
from edgesod.calibration.qdq import write_qdq
from edgesod.calibration.sensitivity import draw_drifts, layer_drifts, write_drifts
from edgesod.calibration.table import CalibrationTable
from edgesod.errors import InputError
from edgesod.recipe import Recipe


def _run(path: Path, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: image})[0])


@pytest.mark.parametrize("scheme", ["cpu", "tensorrt"])
def test_drift_is_that_of_a_file_with_one_layer_quantised(
    chain_onnx: Path,
    table: CalibrationTable,
    photographs: Path,
    recipe: Recipe,
    inputs: list[np.ndarray],
    tmp_path: Path,
    scheme: str,
) -> None:
    drifts = layer_drifts(chain_onnx, table, "minmax", CalibrationImages(photographs, recipe), scheme=scheme)
    nodes = {node.name: node.op_type for node in onnx.load(chain_onnx).graph.node if node.op_type != "Constant"}
    convs = [name for name, op_type in nodes.items() if op_type == "Conv"]
    assert [layer.layer for layer in drifts] == convs[:3]  # the three others make maps
    assert sum(layer.mac_share for layer in drifts) < 1
    for layer in drifts:
        path = tmp_path / "one.onnx"
        others = [name for name in nodes if name != layer.layer]
        write_qdq(chain_onnx, path, table, "minmax", scheme=scheme, float_nodes=others)
        differences = [float(np.abs(_run(path, image) - _run(chain_onnx, image)).mean()) for image in inputs]
        assert layer.drift == pytest.approx(np.mean(differences), rel=1e-3)
        assert layer.worst == pytest.approx(max(differences), rel=1e-3)
        assert layer.drift > 0


def test_a_layer_with_a_bad_range_stands_out(
    chain_onnx: Path, table: CalibrationTable, photographs: Path, recipe: Recipe, tmp_path: Path
) -> None:
    graph = onnx.load(chain_onnx).graph
    second = [node for node in graph.node if node.op_type == "Conv"][1]
    values = table.model_dump()
    low, high = values["ranges"][second.input[0]]["minmax"]
    values["ranges"][second.input[0]]["minmax"] = (low, high * 100)
    spoilt = CalibrationTable.model_validate(values)
    images = CalibrationImages(photographs, recipe, limit=1)
    drifts = layer_drifts(chain_onnx, spoilt, "minmax", images, scheme="tensorrt")
    assert max(drifts, key=lambda layer: layer.drift).layer == second.name
    draw_drifts(drifts, tmp_path / "drifts.png", "chain")
    write_drifts(drifts, tmp_path / "drifts.csv")
    assert cv2.imread(str(tmp_path / "drifts.png")).std() > 5
    lines = (tmp_path / "drifts.csv").read_text().splitlines()
    assert lines[0] == "layer,drift,worst,mac_share"
    assert [line.split(",")[0] for line in lines[1:]] == [layer.layer for layer in drifts]


def test_shares_are_those_of_the_multiplications(
    chain_onnx: Path, table: CalibrationTable, photographs: Path, recipe: Recipe
) -> None:
    images = CalibrationImages(photographs, recipe, limit=1)
    drifts = layer_drifts(chain_onnx, table, "minmax", images, scheme="cpu")
    pixels = 64 * 96
    macs = [pixels * 3 * 16 * 9, pixels * 16 * 16 * 9, pixels * 32 * 16 * 9, pixels * 16 * 9, pixels // 16 * 16 * 9, pixels * 2]
    assert [layer.mac_share for layer in drifts] == pytest.approx([m / sum(macs) for m in macs[:3]], rel=1e-6)


def test_a_run_that_was_stopped_goes_on_with_the_layers_that_are_left(
    chain_onnx: Path,
    table: CalibrationTable,
    photographs: Path,
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept, images = tmp_path / "kept", CalibrationImages(photographs, recipe, limit=1)
    whole = layer_drifts(chain_onnx, table, "minmax", images, scheme="cpu")

    def stop_after_two(done: int, _total: int | None) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        layer_drifts(chain_onnx, table, "minmax", images, scheme="cpu", keep=kept, on_progress=stop_after_two)
    measured: list[str] = []

    def watched(*arguments: object, **options: object) -> None:
        measured.append("a layer")
        write_qdq(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("edgesod.calibration.sensitivity.write_qdq", watched)
    assert layer_drifts(chain_onnx, table, "minmax", images, scheme="cpu", keep=kept) == whole
    assert len(measured) == 1 + 1  # the whole network is written first, to see that it is the same
    other = layer_drifts(chain_onnx, table, "minmax", images, scheme="tensorrt", keep=kept)
    assert len(measured) == 2 + 1 + 3  # another scheme's layers are not these
    assert [layer.drift for layer in other] != [layer.drift for layer in whole]

    def written_otherwise(source: Path, target: Path, *arguments: object, **options: object) -> None:
        measured.append("a layer")
        write_qdq(source, target, *arguments, **options | {"reduce_weights": True})  # type: ignore[arg-type]

    monkeypatch.setattr("edgesod.calibration.sensitivity.write_qdq", written_otherwise)
    layer_drifts(chain_onnx, table, "minmax", images, scheme="tensorrt", keep=kept)
    assert len(measured) == 6 + 1 + 3  # nor are those of a version that writes other files


@pytest.mark.parametrize("content", ["layer,drift", "[]", '{"subject": "x"}', '{"subject": "x", "found": {"a": 1}}'])
def test_what_is_no_record_of_a_stopped_run_is_refused(
    chain_onnx: Path, table: CalibrationTable, photographs: Path, recipe: Recipe, tmp_path: Path, content: str
) -> None:
    kept = tmp_path / "kept"
    kept.write_text(content)
    images = CalibrationImages(photographs, recipe, limit=1)
    with pytest.raises(InputError, match="not what a measurement that was stopped leaves"):
        layer_drifts(chain_onnx, table, "minmax", images, scheme="cpu", keep=kept)
    assert kept.read_text() == content
