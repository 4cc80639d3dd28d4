"""Implicit INT8: TensorRT is handed a calibration cache, or calibrates on images itself."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgesod.calibration.tensorrt_cache import read_cache
from edgesod.errors import InputError
from edgesod.processing.preprocess import preprocess
from edgesod.runtime.cuda import memory
from tests.contract.machine import Machine
from tests.helpers.tensorrt import nothing_lives

from .conftest import Bench
from .small import CONVS, recipe

VERSIONS = ["8.5.3.1", "8.6.1", "10.3.0", "10.16.1.11"]
parametrize = pytest.mark.parametrize


@parametrize("tensorrt_version", VERSIONS)
def test_a_table_becomes_a_cache_with_the_scales_of_the_qdq_file(
    bench: Bench, machine: Machine, photographs: Path, tmp_path: Path, tensorrt_version: str
) -> None:
    bench.built("int8", photographs, typing="weak", int8_route="qdq")
    model = onnx.load(bench.work / "engine.onnx")
    values = {constant.name: numpy_helper.to_array(constant) for constant in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] not in values]
    scales = {node.input[0]: float(values[node.input[1]]) for node in pairs}
    machine.calls.clear()
    record = bench.built("int8", bench.work / "calibration.json", int8_route="implicit")
    assert record.layers["int8"] >= len(CONVS) - 1
    called = {call[0] for call in machine.calls}
    assert "read_calibration_cache" in called
    assert "get_batch" not in called
    cache = read_cache(bench.work / "calibration.cache")
    assert len(scales) >= 4
    assert {name: cache[name] for name in scales} == pytest.approx(scales)
    assert set(cache) >= {"image", "first", "saliency"}
    assert "logits" not in cache  # the map, which stays in float in the Q/DQ file too
    number = {"8.5.3.1": 8503, "8.6.1": 8601, "10.3.0": 100300, "10.16.1.11": 101601}[tensorrt_version]
    assert (bench.work / "calibration.cache").read_text().startswith(f"TRT-{number}-EntropyCalibration2\n")


@parametrize(("tensorrt_version", "packed"), [("8.5.3.1", False), ("8.5.3.1", True), ("10.3.0", False)])
def test_tensorrt_calibrates_on_images_itself(
    bench: Bench, machine: Machine, photographs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, packed: bool
) -> None:
    with tarfile.open(tmp_path / "photographs.tar", "w") as tar:
        tar.add(photographs, "photographs")
    copied: list[np.ndarray] = []
    original = memory.MemoryCuda.h2d_async

    def spy(self: memory.MemoryCuda, target: object, source: np.ndarray, stream: object) -> None:
        copied.append(source.copy())
        original(self, target, source, stream)  # type: ignore[arg-type]

    monkeypatch.setattr(memory.MemoryCuda, "h2d_async", spy)
    bench.built("int8", tmp_path / "photographs.tar" if packed else photographs, int8_route="implicit")
    from edgesod.processing.pictures import read_picture

    expected = [preprocess(read_picture(path), recipe("int8")) for path in sorted(photographs.iterdir())]
    assert len(copied) == len(expected)
    for got, want in zip(copied, expected, strict=True):
        np.testing.assert_array_equal(got, want)
    assert [call[0] for call in machine.calls].count("get_batch") == len(expected) + 1
    assert (bench.work / "calibration.cache").read_text().startswith("TRT-")
    assert nothing_lives(machine)


@parametrize("tensorrt_version", ["8.5.3.1"])
def test_min_max_ranges_take_the_min_max_calibrator_but_not_on_a_dla(
    bench: Bench, machine: Machine, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minmax = recipe("int8").model_copy(
        update={"quantisation": recipe("int8").quantisation.model_copy(update={"method": "minmax"})}
    )
    monkeypatch.setattr("tests.builder.conftest.recipe", lambda precision: minmax)
    bench.built("int8", photographs, int8_route="implicit")
    assert (bench.work / "calibration.cache").read_text().startswith("TRT-8503-MinMaxCalibration\n")
    machine.dla_cores = 1
    bench.built("int8", photographs, dla_core=0)
    assert (bench.work / "calibration.cache").read_text().startswith("TRT-8503-EntropyCalibration2\n")


@parametrize("tensorrt_version", ["8.6.1"])
def test_a_cache_from_elsewhere_is_taken_under_this_versions_name(bench: Bench, tmp_path: Path) -> None:
    tensors = ("image", "a", "first", "pooled", "c", "second", "up", "sum", "both", "d", "third", "logits", "saliency")
    scales = "".join(f"{tensor}: 3c008912\n" for tensor in tensors)
    (tmp_path / "mine.cache").write_text("TRT-7103-EntropyCalibration2\n" + scales)
    bench.built("int8", tmp_path / "mine.cache", int8_route="implicit")
    assert (bench.work / "calibration.cache").read_text() == "TRT-8601-EntropyCalibration2\n" + scales


@parametrize("tensorrt_version", VERSIONS)
def test_an_error_in_a_callback_comes_out_of_the_build(bench: Bench, machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "picture.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match="can be decoded"):
        bench.make("int8", tmp_path / "broken", int8_route="implicit")
    assert nothing_lives(machine)
