"""``edgesod compare``: what its words mean, accuracy and speed together, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgesod import zoo
from edgesod.bench.peaks import write_convolutions
from edgesod.cli import _torch_session, compare
from edgesod.errors import BackendError, InputError, UsageError
from edgesod.evaluation import EvaluationSet, SodScorer
from edgesod.processing.pictures import photograph
from edgesod.runtime import Runtime, open_session
from tests.helpers.cli import edgesod
from tests.helpers.engines import RECIPE, make_engine, write_tiny
from tests.helpers.pairs import split_pairs, write_pairs
from tests.helpers.sleeping import sleeping_runtime

N = 3


def _compared(capsys: pytest.CaptureFixture[str], *words: str, **options: object) -> dict[str, dict[str, float]]:
    compare.command(list(words), rounds=2, threads=1, as_json=True, **options)
    return dict(json.loads(capsys.readouterr().out)["contenders"])


def test_an_engine_and_an_onnx_of_one_network_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_pairs(tmp_path / "set", N)
    parts = split_pairs(data, tmp_path / "parts")
    engine, onnx = make_engine(tmp_path / "engine"), write_tiny(tmp_path / "tiny.onnx")
    found = _compared(capsys, str(engine), f"{onnx}@openvino", f"{onnx}@onnxruntime", data=parts)
    assert list(found) == ["engine", "tiny.onnx@openvino", "tiny.onnx@onnxruntime"]
    assert [one["backend"] for one in found.values()] == ["onnxruntime", "openvino", "onnxruntime"]
    scorer = SodScorer()
    with Runtime.from_session(open_session(onnx, "fp32", "onnxruntime", 1), RECIPE) as runtime:
        for _, image, truth in EvaluationSet(data):
            scorer.add(runtime(image).saliency, truth)
    for one in found.values():
        assert one["mae"] == pytest.approx(scorer.scores()["mae"], abs=1e-5)
        assert one["max_f"] == pytest.approx(scorer.scores()["max_f"], abs=1e-3)
        assert one["drift"] < 1e-5
        assert one["ms"] >= one["network_ms"] > 0
    assert found["engine"]["ratio"] == 1


def test_without_truth_there_is_drift_alone_and_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = make_engine(tmp_path / "a")
    compare.command([str(engine), str(engine)], rounds=1, threads=1)
    out = capsys.readouterr().out
    assert "4 images (photographs of scikit-image)" in out
    assert "a (1)" in out
    assert "a (2)" in out
    assert "drift" in out
    assert "max_f" not in out


def test_precision_is_read_from_the_file(tmp_path: Path) -> None:
    write_convolutions(tmp_path / "int8.onnx", 1, 1, is_int8=True)
    assert compare._precision_of(tmp_path / "int8.onnx") == "int8"
    assert compare._precision_of(write_tiny(tmp_path / "fp32.onnx")) == "fp32"
    assert compare._precision_of(zoo.shipped("u2netp").onnx) == "fp32"


def test_a_checkpoint_runs_in_torch_and_gives_the_maps_of_its_onnx() -> None:
    pytest.importorskip("torch")
    shipped = zoo.shipped("u2netp")
    with _torch_session.open_torch(shipped.weights, None, 1) as torch, Runtime("u2netp", "fp32", "onnxruntime", 1) as runtime:
        assert (torch.backend, torch.recipe.model) == ("torch", "u2netp")
        image = photograph()
        np.testing.assert_allclose(torch(image).map_hw, runtime(image).map_hw, atol=1e-4)


def test_words_name_what_they_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgesod.cli import _runtime

    opened: list[tuple[object, ...]] = []

    def note(*what: object) -> Runtime:
        opened.append(what)
        return sleeping_runtime()

    monkeypatch.setattr(_torch_session, "open_torch", note)
    monkeypatch.setattr(_runtime, "open_runtime", note)
    for word in ("torch:runs/ema.safetensors", "u2netp:int8@openvino", "u2netp:fp32", "engines/mine@onnxruntime"):
        compare._subject(word, "basnet", "auto", 2).source()  # type: ignore[operator]
    assert opened == [
        (Path("runs/ema.safetensors"), "basnet", 2),
        (None, "u2netp", "int8", "openvino", 2),
        (None, "u2netp", "fp32", "auto", 2),
        (Path("engines/mine"), None, None, "onnxruntime", 2),
    ]


def test_what_is_refused(tmp_path: Path) -> None:
    engine = str(make_engine(tmp_path / "engine"))
    for words, error, says in (
        ([engine], UsageError, "one thing alone"),
        ([engine, "nonsense"], UsageError, "'nonsense' is no engine folder"),
        ([engine, "u2netp"], UsageError, "MODEL:PRECISION"),
        ([engine, "absent.onnx"], InputError, "absent.onnx"),
        ([engine, f"{engine}@nonesuch"], UsageError, "nonesuch"),
        ([engine, f"{engine}@openvino"], BackendError, "was built for onnxruntime"),
        ([engine, "absent/engine"], InputError, "absent/engine"),
        ([engine, "torch:absent.pth"], InputError, "absent.pth"),
    ):
        with pytest.raises((error,), match=says.replace("(", r"\(")):
            compare.command(words, rounds=1, threads=1)


def test_it_is_a_command(tmp_path: Path) -> None:
    done = edgesod("compare", "a:b", "c", cwd=tmp_path)
    assert done.returncode == 2
    assert "torch:CHECKPOINT" in done.stderr
    assert "Traceback" not in done.stderr


def test_engines_that_take_frames_of_one_size_set_the_size_for_all() -> None:
    def taking(frame_hw: tuple[int, int] | None) -> SimpleNamespace:
        return SimpleNamespace(recipe=RECIPE.model_copy(update={"frame_hw": frame_hw}))

    assert compare._frame_hw([taking(None), taking(None)]) is None
    assert compare._frame_hw([taking(None), taking((720, 1280)), taking((720, 1280))]) == (720, 1280)
    with pytest.raises(UsageError, match="640×480"):
        compare._frame_hw([taking((720, 1280)), taking((480, 640))])
