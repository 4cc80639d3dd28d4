"""The gate passes a faithful engine, and refuses one that is silently wrong."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgesod import assets, zoo
from edgesod.builder import GateSet, build, measure, verdict
from edgesod.calibration.qdq import write_qdq
from edgesod.calibration.table import read_table
from edgesod.errors import CheckFailed, InputError
from edgesod.evaluation.metrics import SodScorer
from edgesod.files import sha256_of
from edgesod.manifest import REVISION, GateReport, check_manifest, read_manifest
from edgesod.processing.preprocess import preprocess
from edgesod.recipe import Precision, Recipe, recipe_for
from edgesod.runtime import MemorySession, Runtime, compiled, is_built_from_shipped, open_session
from edgesod.types import TensorSpec
from tests.helpers.pairs import split_pairs, write_pairs

INT8 = recipe_for("u2netp", "int8")
Function = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]


SMALL = Recipe(model="brightness", size_hw=(32, 32), precision="int8")


def _runtime(function: Function, size: int = 32) -> Runtime:
    session = MemorySession(
        function,
        inputs=(TensorSpec("image", (1, 3, size, size), "float32"),),
        outputs=(TensorSpec("saliency", (1, 1, size, size), "float32"),),
    )
    return Runtime.from_session(session, SMALL)


def _brightness(shift: float, delay_s: float = 0.0) -> Runtime:
    """A network whose map is the picture's brightness, moved by ``shift``."""

    def network(feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        time.sleep(delay_s)
        return {"saliency": np.clip(feeds["image"].mean(1, keepdims=True) / 4 + 0.5 + shift, 0, 1)}

    return _runtime(network)


def _open(onnx: Path, precision: Precision, backend: str) -> Runtime:
    return Runtime.from_session(open_session(onnx, precision, backend), INT8)


def test_what_openvino_makes_of_signed_activations_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "edgesod.runtime.openvino_session._refuse_signed", lambda *_: None
    )  # so that the gate is all that is left
    onnx = zoo.shipped("u2netp").onnx
    write_qdq(
        onnx, tmp_path / "signed.onnx", read_table(assets.tables() / "u2netp-320.json"), "percentile-99.99", scheme="tensorrt"
    )
    with _open(onnx, "fp32", "onnxruntime") as reference:
        with _open(tmp_path / "signed.onnx", "int8", "onnxruntime") as right:
            verdict(measure(right, reference, GateSet(None)), INT8)
        with _open(tmp_path / "signed.onnx", "int8", "openvino") as wrong:
            report = measure(wrong, reference, GateSet(None))
    if report.map_mae <= INT8.gate.map_mae:
        pytest.skip(f"this OpenVINO on this CPU runs signed activations right (maps differ by {report.map_mae:.4f})")
    with pytest.raises(CheckFailed, match="maps differ by"):
        verdict(report, INT8)


def test_faithful_engine_passes_and_drifting_one_fails() -> None:
    images = GateSet(None)
    verdict(measure(_brightness(0.0), _brightness(0.0), images), SMALL)
    report = measure(_brightness(0.1), _brightness(0.0), images)
    assert report.map_mae == pytest.approx(0.1, abs=0.02)
    with pytest.raises(CheckFailed, match=r"maps differ by 0\.\d+ \(bound 0\.02\)"):
        verdict(report, SMALL)


@pytest.mark.parametrize(("precision", "remedy"), [("int8", "--calib"), ("fp32", "--backend"), ("bf16", "--fp32")])
def test_the_remedy_suits_the_precision(precision: Precision, remedy: str) -> None:
    report = GateReport(images="", n=1, map_mae=0.1, mask_iou=0, latency_ms=1, fp32_latency_ms=1, speedup=1)
    with pytest.raises(CheckFailed) as caught:
        verdict(report, SMALL.model_copy(update={"precision": precision}))
    assert remedy in caught.value.hint
    assert ("--calib" in caught.value.hint) == (precision == "int8")


def test_preprocessing_counts_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, reference = _brightness(0.0, delay_s=0.004), _brightness(0.0)
    prepare = reference._prepare

    def slow(bgr: NDArray[np.uint8]) -> NDArray[Any]:
        time.sleep(0.008)
        return prepare(bgr)

    monkeypatch.setattr(reference, "_prepare", slow)
    report = measure(engine, reference, GateSet(None))
    assert report.speedup > 1  # by inference alone the engine is the slower one
    assert not report.warnings


def test_value_that_is_not_finite_fails() -> None:
    broken = _runtime(lambda _: {"saliency": np.full((1, 1, 32, 32), np.nan, np.float32)})
    with pytest.raises(CheckFailed, match="finite"):
        measure(broken, _brightness(0.0), GateSet(None))


def test_drift_against_ground_truth_is_the_scorers(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path, 6)
    report = measure(_brightness(0.3), _brightness(0.0), GateSet(folder))
    ours, theirs = SodScorer(), SodScorer()
    for path in sorted((folder / "images").iterdir()):
        truth = cv2.imread(str(folder / "masks" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
        x = preprocess(cv2.imread(str(path)), SMALL)
        for scorer, shift in ((ours, 0.3), (theirs, 0.0)):
            y = np.clip(x.mean(1)[0] / 4 + 0.5 + shift, 0, 1)
            scorer.add(cv2.resize(y, truth.shape[::-1], interpolation=cv2.INTER_LINEAR), truth)
    assert report.mae_drift == pytest.approx(abs(ours.scores()["mae"] - theirs.scores()["mae"]), abs=1e-6)
    assert report.max_f_drift == pytest.approx(abs(ours.scores()["max_f"] - theirs.scores()["max_f"]), abs=1e-6)


def test_slower_engine_is_a_warning_with_numbers() -> None:
    report = measure(_brightness(0.0, delay_s=0.004), _brightness(0.0), GateSet(None))
    assert report.speedup < 1
    assert "slower than ONNX Runtime FP32" in report.warnings[0]


def test_failed_build_leaves_the_old_engine_alone(tmp_path: Path) -> None:
    onnx = zoo.shipped("u2netp").onnx
    small = INT8.model_copy(update={"gate": INT8.gate.model_copy(update={"map_mae": 1e-9})})
    folder = build(INT8.model_copy(update={"precision": "fp32"}), onnx, root=tmp_path)
    before = {p.name: sha256_of(p) for p in folder.iterdir()}
    with pytest.raises(CheckFailed):
        build(small, onnx, root=tmp_path)
    assert {p.name: sha256_of(p) for p in folder.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_manifest_records_the_whole_chain(tmp_path: Path, precision: str) -> None:
    folder = build(recipe_for("u2netp", precision), zoo.shipped("u2netp").onnx, root=tmp_path)  # type: ignore[arg-type]
    manifest = check_manifest(folder)
    assert manifest == read_manifest(folder)
    assert manifest.sha256["model.onnx"] == sha256_of(zoo.shipped("u2netp").onnx)
    assert set(manifest.sha256) == {p.name for p in folder.iterdir()} - {"manifest.json", compiled.FILE_NAME}
    assert manifest.rebuild == f"edgesod build --model u2netp --{precision}"
    assert manifest.revision == REVISION
    assert is_built_from_shipped(folder, manifest.recipe)
    manifest.model_copy(update={"revision": REVISION - 1}).write(folder)
    assert not is_built_from_shipped(folder, manifest.recipe)
    assert manifest.inputs[0].shape == (1, 3, 320, 320)
    assert manifest.gate.n == 4
    assert manifest.gate.map_mae < 0.01


def test_a_set_is_one_however_it_is_laid_out(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "DUTS-TE", 2)
    assert "with ground truth" in GateSet(folder).description
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.add(folder, "set")
    (folder / "images").rename(folder / "DUTS-TE-Image")
    (folder / "masks").rename(folder / "DUTS-TE-Mask")
    for place in (folder, tmp_path / "set.tar"):
        images = GateSet(place)
        assert len(images) == 2
        assert all(truth is not None for _, truth in images)
    assert "without ground truth" in GateSet(folder / "DUTS-TE-Image").description


def test_a_set_may_come_in_parts_and_so_may_pictures(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "set", 5)
    parts = GateSet(split_pairs(folder, tmp_path / "parts"))
    assert parts.description == "half-0, half-1, with ground truth"
    for ours, theirs in zip(parts, GateSet(folder), strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])
    pictures = GateSet([folder / "images", tmp_path / "parts/half-0/images"])
    assert (len(pictures), pictures.description) == (5 + 3, "images, images, without ground truth")
    assert all(truth is None for _, truth in pictures)
    (tmp_path / "photos").mkdir()
    (folder / "images/000.jpg").rename(tmp_path / "photos/000.jpg")
    with pytest.raises(InputError, match=r"nothing of the set in .*photos"):
        GateSet([folder, tmp_path / "photos"])


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no picture"):
        GateSet(tmp_path)
