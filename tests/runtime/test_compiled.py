"""What was compiled is used again where it fits, and never where it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgesod import Runtime
from edgesod.runtime import openvino_session
from edgesod.runtime.compiled import FILE_NAME, CompiledFile
from edgesod.runtime.openvino_session import OpenVinoSession
from edgesod.threads import resolve_threads
from tests.helpers.engines import INPUT, make_engine, run_tiny, write_tiny

FEED = np.random.default_rng(0).normal(0, 1, INPUT.shape).astype(np.float32)


def saliency(onnx_file: Path, cache: Path, threads: int = 1) -> np.ndarray:
    with OpenVinoSession(onnx_file, "fp32", threads, cache) as session:
        assert session.inputs == (INPUT,)
        return session.run({"image": FEED})["saliency"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "model.onnx")


@pytest.fixture
def kept(model: Path) -> Path:
    """The file that a first start leaves."""
    np.testing.assert_allclose(saliency(model, model.parent), run_tiny(FEED), atol=1e-5)
    assert (model.parent / FILE_NAME).is_file()
    return model.parent / FILE_NAME


def refuse(*_: object) -> None:
    raise AssertionError("it was compiled again")


def test_second_start_compiles_nothing(model: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_session, "_compiled", refuse)
    np.testing.assert_allclose(saliency(model, kept.parent, threads=2), run_tiny(FEED), atol=1e-5)


@pytest.mark.skipif(resolve_threads(None) < 2, reason="OpenVINO takes no more threads than this process may use cores")
def test_threads_are_those_asked_for_now(model: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_session, "_compiled", refuse)
    for threads in (2, 1):
        with OpenVinoSession(model, "fp32", threads, kept.parent) as session:
            assert session._request.get_compiled_model().get_property("INFERENCE_NUM_THREADS") == threads


def test_another_network_under_the_same_name_is_compiled(model: Path, kept: Path) -> None:
    before = kept.read_bytes()
    changed = onnx.load(model)
    weights = changed.graph.initializer[0]
    weights.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weights), weights.name))
    onnx.save(changed, model)
    np.testing.assert_allclose(saliency(model, kept.parent), 1 - run_tiny(FEED), atol=1e-5)  # σ(−x) = 1 − σ(x)
    assert kept.read_bytes() != before


@pytest.mark.parametrize("damage", ["bit", "short", "empty", "no file at all", "refused"])
def test_damage_is_noticed_and_mended(model: Path, kept: Path, damage: str) -> None:
    whole = bytearray(kept.read_bytes())
    if damage == "bit":
        whole[len(whole) // 2] ^= 1
        kept.write_bytes(whole)
    elif damage == "short":
        kept.write_bytes(whole[: len(whole) // 2])
    elif damage == "empty":
        kept.write_bytes(b"")
    elif damage == "no file at all":
        kept.unlink()
        kept.mkdir()
    else:  # as it was written, and yet nothing that OpenVINO takes
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        CompiledFile(kept.parent, model, openvino_session._conditions(settings)).write(b"not a network")
    np.testing.assert_allclose(saliency(model, kept.parent), run_tiny(FEED), atol=1e-5)
    if kept.is_file():
        assert kept.read_bytes()[:100] == bytes(whole[:100])


def test_another_version_cpu_or_precision_does_not_fit(model: Path, kept: Path) -> None:
    ours = openvino_session._conditions({"INFERENCE_PRECISION_HINT": "f32"})
    assert CompiledFile(kept.parent, model, ours).read() is not None
    for k, condition in enumerate(ours):
        assert CompiledFile(kept.parent, model, (*ours[:k], condition + "x", *ours[k + 1 :])).read() is None
    assert openvino_session._conditions({"INFERENCE_PRECISION_HINT": "bf16"}) != ours


def test_where_nothing_can_be_written_nothing_is_kept(model: Path) -> None:
    np.testing.assert_allclose(saliency(model, model), run_tiny(FEED), atol=1e-5)  # a file where a folder should be
    assert [path.name for path in model.parent.iterdir()] == [model.name]


def test_an_engine_folder_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_engine(tmp_path / "tiny-32x48-fp32", backend="openvino")
    frame = np.random.default_rng(1).integers(0, 256, (32, 48, 3), np.uint8)
    with Runtime(folder) as runtime:
        first = runtime(frame).map_hw
    assert (folder / FILE_NAME).is_file()
    monkeypatch.setattr(openvino_session, "_compiled", refuse)
    with Runtime(folder) as runtime:
        np.testing.assert_array_equal(runtime(frame).map_hw, first)
