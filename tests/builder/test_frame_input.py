"""Engines that take frames as they are: built by every TensorRT and by ONNX Runtime, gated, run and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgesod.builder import build
from edgesod.errors import InputError, UsageError
from edgesod.manifest import read_manifest
from edgesod.processing.pictures import photograph
from edgesod.processing.resize import resize_image
from edgesod.recipe import Precision
from edgesod.runtime import Runtime, open_session
from tests.helpers.cli import edgesod

from .conftest import Bench
from .small import SIZE_HW, recipe, write_small

FRAME_HW = (72, 128)
FRAMES = {"frame_hw": FRAME_HW}
parametrize = pytest.mark.parametrize


def _frame() -> np.ndarray:
    return resize_image(photograph(), FRAME_HW, "linear")


def _expected(source: Path, frame: np.ndarray) -> np.ndarray:
    """Return the map of FP32 after the CPU's preprocessing."""
    with Runtime.from_session(open_session(source, "fp32", "onnxruntime"), recipe("fp32")) as runtime:
        return runtime(frame).map_hw


@parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_tensorrt_builds_and_runs_one(
    bench: Bench, tensorrt_version: str, photographs: Path, precision: Precision
) -> None:
    bench.make(precision, photographs if precision == "int8" else None, **FRAMES)
    session = open_session(bench.work / "engine.plan", precision, "tensorrt")
    with Runtime.from_session(session, recipe(precision).model_copy(update=FRAMES)) as runtime:
        assert [(s.name, s.shape, s.dtype) for s in session.inputs] == [("frame", (1, *FRAME_HW, 3), "uint8")]
        runtime.warm_up()
        got = runtime(_frame())
    bound = {"fp32": 0.003, "fp16": 0.005, "int8": 0.05}[precision]
    assert np.abs(got.map_hw - _expected(bench.source, _frame())).mean() < bound
    assert got.saliency.shape == FRAME_HW


@parametrize("tensorrt_version", ["8.6.1", "10.3.0"])
def test_scales_of_a_table_fit_and_pictures_do_not(bench: Bench, photographs: Path, tensorrt_version: str) -> None:
    with pytest.raises(UsageError, match="pictures of any size are no frames") as caught:
        bench.make("int8", photographs, int8_route="implicit", **FRAMES)
    assert "edgesod calibrate" in caught.value.hint
    bench.make("int8", photographs, **FRAMES)
    made = bench.make("int8", bench.work / "calibration.json", int8_route="implicit", **FRAMES)
    assert made.tensorrt is not None
    assert made.tensorrt.layers["int8"] >= 3
    with pytest.raises(UsageError, match="takes one at a time"):
        bench.make("fp32", batch=(1, 2, 4), **FRAMES)


@parametrize("tensorrt_version", ["10.16.1.11"])
@parametrize("backend", ["tensorrt", "openvino", "onnxruntime"])
def test_the_gate_compares_it_with_the_cpus_preprocessing(bench: Bench, tmp_path: Path, backend: str) -> None:
    wanted = recipe("fp32").model_copy(update=FRAMES)
    folder = build(wanted, bench.source, backend=backend, root=tmp_path / "engines")
    assert folder.name == "small-32x48-fp32-128x72"
    manifest = read_manifest(folder)
    assert manifest.recipe.frame_hw == FRAME_HW
    assert manifest.gate.images == "photographs of scikit-image, stretched to 128×72"
    assert 0 < manifest.gate.map_mae < 0.003
    assert manifest.rebuild == f"edgesod build --model small --fp32 --frame-input 128x72 --backend {backend} --onnx FILE"
    with Runtime(folder) as runtime:
        assert np.abs(runtime(_frame()).map_hw - _expected(bench.source, _frame())).max() < 0.02
        for other in ((128, 72), SIZE_HW):
            with pytest.raises(InputError, match=rf"takes frames of 128×72 alone, this one is {other[1]}×{other[0]}") as caught:
                runtime(np.zeros((*other, 3), np.uint8))
            assert "--frame-input" in caught.value.hint


def test_the_command_builds_one(tmp_path: Path) -> None:
    source = write_small(tmp_path / "small.onnx")
    words = ["--onnx", str(source), "--fp32", "--backend", "onnxruntime", "--out", str(tmp_path / "engines"), "--json"]
    done = edgesod("build", *words, "--frame-input", "128x72", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = Path(json.loads(done.stdout)["engine"])
    assert folder.name == "small-32x48-fp32-128x72"
    assert "which takes frames of 128×72" in done.stderr
    done = edgesod("build", *words, "--frame-input", "129x72", cwd=tmp_path)
    assert done.returncode == 2
    assert "129×72 cannot be halved 1 times" in done.stderr


def test_a_network_that_takes_no_frames_is_not_taken_for_one(tmp_path: Path) -> None:
    session = open_session(write_small(tmp_path / "small.onnx"), "fp32", "onnxruntime")
    with pytest.raises(InputError, match=r"takes one uint8 image \(1, 72, 128, 3\), this network takes image float32"):
        Runtime.from_session(session, recipe("fp32").model_copy(update=FRAMES))
