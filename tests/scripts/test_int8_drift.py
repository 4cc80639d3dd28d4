"""The drift that is printed is that of the files which are written, and what is chosen by looks at the hold-out alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest
import torch

from edgesod import zoo
from edgesod.calibration import calibrate
from edgesod.calibration.qdq import write_qdq
from edgesod.errors import InputError
from edgesod.evaluation import EvaluationSet, SodScorer
from edgesod.export.torch_export import export_onnx
from edgesod.files import sha256_of
from edgesod.manifest import this_device
from edgesod.processing.preprocess import preprocess
from edgesod.processing.resize import resize_map
from edgesod.recipe import Recipe
from tests.calibration.conftest import SIZE_HW, Chain
from tests.helpers.pairs import write_pairs

RECIPE = Recipe(model="chain", size_hw=SIZE_HW, precision="int8")


@pytest.fixture
def drift(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    import int8_drift

    return int8_drift


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network, its table and recipe, and a set."""
    folder = tmp_path_factory.mktemp("drift")
    torch.manual_seed(0)
    export_onnx(Chain().eval(), SIZE_HW, folder / "chain.onnx")
    write_pairs(folder / "set", 41)
    calibrate(folder / "chain.onnx", RECIPE, folder / "set" / "images", limit=4).write(folder / "chain.json")
    (folder / "chain-int8.toml").write_text(f'model = "chain"\nsize_hw = {list(SIZE_HW)}\nprecision = "int8"\n')
    return folder


def _run(drift: ModuleType, place: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    files = ["--onnx", place / "chain.onnx", "--table", place / "chain.json", "--recipe", place / "chain-int8.toml"]
    command = ["int8_drift.py", "--data", place / "set", *files, "--document", place / "table.md", *words]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    code: int = drift.main()
    return code


def _scores(onnx: Path, pairs: EvaluationSet) -> dict[str, float]:
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    scorer = SodScorer()
    for _, image, truth in pairs:
        saliency = session.run(None, {session.get_inputs()[0].name: preprocess(image, RECIPE)})[0][0, 0]
        scorer.add(resize_map(saliency, truth.shape), truth, stretch=True)
    return scorer.scores()


def test_rows_of_other_written_files_are_measured_anew(drift: ModuleType, place: Path, tmp_path: Path) -> None:
    import compare_range_methods as ranges

    def what(recipe: Recipe) -> dict[str, object]:
        return {"written": ranges.written_now(place / "chain.onnx", recipe, place / "chain.json")}

    before, after = what(RECIPE), what(drift.quantised_by(RECIPE, method="minmax"))
    (tmp_path / "results.json").write_text(json.dumps({"what": before, "rows": {"percentile-99.99": {}}}))
    assert ranges.read_results(tmp_path, what(RECIPE))["rows"].keys() == {"percentile-99.99"}
    assert ranges.read_results(tmp_path, after) == {"what": after, "rows": {}}


def test_every_run_is_scored_and_held_against_its_bounds(
    drift: ModuleType, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = _run(drift, place, monkeypatch)
    found = json.loads(capsys.readouterr().out)
    pairs, table = EvaluationSet(place / "set"), drift.read_table(place / "chain.json")
    fp32 = _scores(place / "chain.onnx", pairs)
    assert found["fp32"]["max_f"] == pytest.approx(fp32["max_f"], abs=1e-4)
    assert [(row["scheme"], row["backend"]) for row in found["int8"]] == list(drift.RUNS)
    for row in found["int8"]:
        if row["backend"] != "onnxruntime":
            continue
        reduce = row["scheme"] == "cpu" and not this_device().int8_dot_product
        method = RECIPE.quantisation.method
        write_qdq(place / "chain.onnx", tmp_path / "q.onnx", table, method, scheme=row["scheme"], reduce_weights=reduce)
        int8 = _scores(tmp_path / "q.onnx", pairs)
        for key in ("max_f", "mae"):
            assert row[f"{key}_drift"] == pytest.approx(abs(int8[key] - fp32[key]), abs=2e-4)
        assert row["map_mae"] > 0
    assert code == (0 if all(row["holds"] for row in found["int8"]) else 1)
    text = (place / "table.md").read_text(encoding="utf-8")
    assert text.count("| INT8, ") == 3
    assert f"ONNX `{sha256_of(place / 'chain.onnx')[:12]}` (chain); 41 of 41 images" in text
    assert text.startswith("<!-- drift of chain:")


def test_another_models_table_stays_and_a_missing_place_is_told_before_measuring(
    drift: ModuleType, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    document, other = tmp_path / "page.md", "<!-- drift of u2netp: a -->\nu2netp's\n<!-- end of drift of u2netp -->\n"
    document.write_text(other)
    monkeypatch.setattr(drift, "score", None)  # nothing is measured
    with pytest.raises(InputError, match="no place") as caught:
        _run(drift, place, monkeypatch, "--document", str(document))
    assert "drift of chain" in str(caught.value.hint)
    assert document.read_text() == other


def test_the_document_has_a_place_for_each_shipped_model_which_names_its_weights(drift: ModuleType) -> None:
    for model in zoo.names():
        before, after = drift.around(drift.DOCUMENT, drift.BEGIN.format(model), drift.END.format(model))
        assert model in before + after
        assert drift.measured_of(model, None) == f"Weights `{sha256_of(zoo.shipped(model).weights)[:12]}` ({model})"


def test_only_what_is_shipped_goes_to_the_document_unasked(
    drift: ModuleType, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(drift, "DOCUMENT", tmp_path / "page.md")
    monkeypatch.setattr(drift, "BOUNDS", {scheme: {"max_f": 1.0, "mae": 1.0} for scheme in drift.BOUNDS})
    write_pairs(tmp_path / "set", 2)
    files = ["--onnx", place / "chain.onnx", "--table", place / "chain.json", "--recipe", place / "chain-int8.toml"]
    command = ["int8_drift.py", "--data", tmp_path / "set", *files]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    assert drift.main() == 0
    assert not (tmp_path / "page.md").exists()


@pytest.mark.parametrize(("bound", "code"), [(1.0, 0), (-1.0, 1)])
def test_the_exit_code_says_whether_the_bounds_hold(
    drift: ModuleType, place: Path, monkeypatch: pytest.MonkeyPatch, bound: float, code: int
) -> None:
    monkeypatch.setattr(drift, "BOUNDS", {scheme: {"max_f": 1.0, "mae": bound} for scheme in drift.BOUNDS})
    assert _run(drift, place, monkeypatch, "--score-images", "2") == code


def test_layers_can_be_left_in_float(
    drift: ModuleType, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(drift, place, monkeypatch, "--score-images", "2", "--float-nodes", "*")
    rows = json.loads(capsys.readouterr().out)["int8"]
    assert [row["map_mae"] < 1e-6 for row in rows] == [True, True, True]


def test_the_hold_out_is_every_twentieth(drift: ModuleType, place: Path) -> None:
    pictures = drift.Pictures([place / "set"], hold_out=True)
    assert (pictures.stems, pictures.of) == (["000", "020", "040"], 3)
    assert drift.Pictures([place / "set"], 2).stems == ["000", "020"]
    assert np.array_equal(pictures.reference, [])
