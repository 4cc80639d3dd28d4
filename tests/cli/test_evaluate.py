"""``edgesod eval``: one thing or several, side by side, with curves, a sheet and the published rows."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgesod import Runtime
from edgesod.cli import evaluate
from edgesod.errors import InputError, OutputError, UsageError
from edgesod.evaluation import EvaluationSet, SodScorer, accumulate_folder
from edgesod.recipe import Preprocessing, Recipe
from edgesod.runtime import open_session
from tests.helpers.engines import RECIPE, make_engine, write_tiny
from tests.helpers.pairs import split_pairs, write_pairs

N = 6


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A set with two folders of maps beside it, the one better than the other."""
    place = write_pairs(tmp_path / "set", N)
    rng = np.random.default_rng(0)
    for name, noise in (("good", 30), ("bad", 200)):
        (tmp_path / name).mkdir()
        for path in (place / "masks").iterdir():
            mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(float)
            cv2.imwrite(str(tmp_path / name / path.name), np.clip(mask + rng.normal(0, noise, mask.shape), 0, 255))
    return place


def _scores(capsys: pytest.CaptureFixture[str], *data: Path, **what: object) -> dict[str, float]:
    evaluate.command(list(data), as_json=True, threads=1, **what)
    found = json.loads(capsys.readouterr().out)
    assert found.pop("hold_out") is what.get("hold_out", False)
    assert found.pop("data") == [str(place) for place in data]
    return dict(found)


def _reference(data: Path, onnx: Path, recipe: Recipe = RECIPE) -> dict[str, float]:
    scorer = SodScorer(full=True)
    with Runtime.from_session(open_session(onnx, "fp32", "onnxruntime"), recipe) as runtime:
        for _, image, truth in EvaluationSet(data):
            scorer.add(runtime(image).saliency, truth, stretch=True)
    return scorer.scores()


def test_engine_onnx_and_maps_score_alike(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx = write_tiny(tmp_path / "tiny.onnx")
    expected = _reference(data, onnx)
    assert _scores(capsys, data, onnx=[onnx], backend="onnxruntime") == pytest.approx(expected)
    assert _scores(capsys, data, engine=[make_engine(tmp_path / "engine")]) == pytest.approx(expected)
    assert {"n", "mae", "max_f", "max_f_mean", "mean_f", "adp_f", "weighted_f", "s_measure", "e_measure"} <= expected.keys()
    good = accumulate_folder(tmp_path / "good", data, jobs=1).scores()
    assert _scores(capsys, data, maps=[tmp_path / "good"]) == pytest.approx(good)


def test_a_set_may_come_in_parts(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx = write_tiny(tmp_path / "tiny.onnx")
    parts = split_pairs(data, tmp_path / "parts")
    assert _scores(capsys, *parts, onnx=[onnx], backend="onnxruntime") == pytest.approx(_reference(data, onnx))
    good = accumulate_folder(tmp_path / "good", data, jobs=1).scores()
    assert _scores(capsys, *parts, maps=[tmp_path / "good"]) == good
    evaluate.command(parts, maps=[tmp_path / "good"], threads=1, sheet=tmp_path / "parts.png")
    evaluate.command([data], maps=[tmp_path / "good"], threads=1, sheet=tmp_path / "whole.png")
    np.testing.assert_array_equal(*(cv2.imread(str(tmp_path / f"{name}.png")) for name in ("parts", "whole")))
    with pytest.raises(InputError, match=r"nothing of the set in .*good"):
        evaluate.command([data, tmp_path / "good"], onnx=[onnx])


def test_the_hold_out_alone_is_scored_whatever_gives_the_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = write_pairs(tmp_path / "whole", 45)
    held = tmp_path / "held"
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        (held / kind).mkdir(parents=True)
        for stem in ("000", "020", "040"):  # listed by hand
            shutil.copy(whole / kind / f"{stem}.{suffix}", held / kind)
    maps = tmp_path / "maps"
    maps.mkdir()
    for k, path in enumerate(sorted((held / "masks").iterdir())):  # maps of the others are not asked for
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(maps / path.name), cv2.GaussianBlur(mask, (0, 0), 2 + k))
    onnx = write_tiny(tmp_path / "tiny.onnx")
    engine = make_engine(tmp_path / "engine")
    parts = split_pairs(whole, tmp_path / "parts")
    for what in ({"maps": [maps]}, {"onnx": [onnx], "backend": "onnxruntime"}, {"engine": [engine]}):
        expected = _scores(capsys, held, **what)
        assert expected["n"] == 3
        for places in ([whole], parts):
            assert _scores(capsys, *places, hold_out=True, **what) == pytest.approx(expected, abs=1e-12)
    assert _scores(capsys, held, hold_out=True, maps=[maps])["n"] == 1
    evaluate.command([whole], hold_out=True, maps=[maps], threads=1, sheet=tmp_path / "a.png", out=tmp_path / "out")
    assert "3 images of the hold-out" in capsys.readouterr().out
    evaluate.command([held], maps=[maps], threads=1, sheet=tmp_path / "b.png")
    np.testing.assert_array_equal(*(cv2.imread(str(tmp_path / name)) for name in ("a.png", "b.png")))


def test_the_hold_out_is_that_of_training(tmp_path: Path) -> None:
    loop = pytest.importorskip("trainer.training.loop")
    from trainer.training.recipe import load_recipe

    data = write_pairs(tmp_path / "set", 45)
    recipe = load_recipe("fast").model_copy(update={"validate_images": 1000, "precision": "fp32"})
    trainer = loop.Trainer(recipe, [str(data)], tmp_path / "run")
    assert trainer.held == ["000", "020", "040"]
    assert sorted([*trainer.stems, *trainer.held]) == [f"{k:03d}" for k in range(45)]


def test_published_scores_are_not_set_beside_a_hold_outs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_pairs(tmp_path / "SOD", 3)
    engine = make_engine(tmp_path / "engine", RECIPE.model_copy(update={"model": "basnet"}))
    for hold_out in (False, True):
        evaluate.command([data], engine=[engine], threads=1, hold_out=hold_out)
        assert ("0.8510" in capsys.readouterr().out) is not hold_out
    with pytest.raises(UsageError, match="published scores are of all of SOD"):
        evaluate.command([data], engine=[engine], dataset="SOD", hold_out=True)


def test_a_foreign_network_is_fed_as_the_recipe_says(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx, own = write_tiny(tmp_path / "tiny.onnx"), tmp_path / "own.toml"
    assert "does not say what it wants to be fed" in _noted(capsys, data, onnx=[onnx])
    fed = RECIPE.model_copy(
        update={"preprocessing": Preprocessing(colour="BGR", divide_by="1", mean=(9, 8, 7), std=(50, 50, 50))}
    )
    own.write_text(
        f'model = "tiny"\nsize_hw = {list(RECIPE.size_hw)}\nprecision = "fp32"\n'
        'preprocessing = { colour = "BGR", divide_by = "1", mean = [9, 8, 7], std = [50, 50, 50] }\n'
    )
    assert _noted(capsys, data, onnx=[onnx], recipe_file=own) == ""
    expected = _reference(data, onnx, fed)
    assert expected["mae"] != pytest.approx(_reference(data, onnx)["mae"], rel=1e-3)
    assert _scores(capsys, data, onnx=[onnx], recipe_file=own, backend="onnxruntime") == pytest.approx(expected)


def _noted(capsys: pytest.CaptureFixture[str], data: Path, **what: object) -> str:
    evaluate.command([data], as_json=True, threads=1, backend="onnxruntime", **what)
    return capsys.readouterr().err


def test_several_stand_side_by_side(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, sheet = tmp_path / "out", tmp_path / "sheet.png"
    engine = make_engine(tmp_path / "engines" / "good")  # of the same name as a folder of maps
    evaluate.command(
        [data], maps=[tmp_path / "good", tmp_path / "bad"], engine=[engine], out=out, sheet=sheet, sheet_rows=3, threads=1
    )
    table = capsys.readouterr().out
    assert all(label in table for label in ("good (1)", "bad", "good (2)", f"{N} images"))
    with (out / "curves.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["model"] for row in rows} == {"good (1)", "bad", "good (2)"}
    assert max(float(row["f"]) for row in rows if row["model"] == "good (1)") > max(
        float(row["f"]) for row in rows if row["model"] == "bad"
    )
    assert cv2.imread(str(out / "curves.png")) is not None
    picture = cv2.imread(str(sheet))
    assert picture.shape == (22 + 3 * (180 + 22 + 4) + 4, 5 * (240 + 4) + 4, 3)
    truth = cv2.imread(str(data / "masks" / "000.png"), cv2.IMREAD_GRAYSCALE)
    cell = picture[26 : 26 + 180, 4 + 244 + 30 : 4 + 244 + 210, 0]
    np.testing.assert_allclose(cell, cv2.resize(truth, (180, 180)), atol=80)
    scores = _scores(capsys, data, maps=[tmp_path / "good", tmp_path / "bad"])
    assert scores["models"]["good"]["mae"] < scores["models"]["bad"]["mae"]


def test_published_rows_are_those_of_the_engines_model(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = make_engine(tmp_path / "engine", RECIPE.model_copy(update={"model": "basnet"}))
    evaluate.command([data], engine=[engine], dataset="SOD", threads=1)
    out = capsys.readouterr().out
    assert "0.8510" in out
    assert "0.1130" in out
    evaluate.command([data], engine=[engine], maps=[tmp_path / "good"], dataset="SOD", threads=1)
    assert "max_f published" in capsys.readouterr().out
    evaluate.command([data], engine=[engine], dataset="SOD", stretch=False, threads=1)
    assert "0.8510" not in capsys.readouterr().out, "published scores are of stretched maps"


def test_a_file_that_cannot_be_written_does_not_cost_the_scores(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("no folder")
    for what in ({"out": tmp_path / "out"}, {"sheet": tmp_path / "out/sheet.png"}):
        with pytest.raises(OutputError):
            evaluate.command([data], maps=[tmp_path / "good"], threads=1, **what)
        assert "max_f" in capsys.readouterr().out


def test_what_is_missing_is_named(tmp_path: Path, data: Path) -> None:
    with pytest.raises(UsageError, match="nothing to score"):
        evaluate.command([data])
    with pytest.raises(UsageError, match="not int8"):
        evaluate.command([data], onnx=[tmp_path / "tiny.onnx"], int8=True)
    with pytest.raises(UsageError, match="there is no set 'SODD'"):
        evaluate.command([data], maps=[tmp_path / "good"], dataset="SODD")
    with pytest.raises(UsageError, match="--size goes with --weights"):
        evaluate.command([data], onnx=[tmp_path / "tiny.onnx"], size=64)
    with pytest.raises(UsageError, match="--recipe goes with --onnx or --weights"):
        evaluate.command([data], maps=[tmp_path / "good"], recipe_file=tmp_path / "mine.toml")
    (tmp_path / "good" / "003.png").unlink()
    with pytest.raises(InputError, match="1 of 6 masks have no map"):
        evaluate.command([data], maps=[tmp_path / "good"], threads=1)
