"""From a training set as its download page has it to the shipped files, by the command that the README names."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

from edgesod import zoo
from edgesod.calibration.table import check_table, read_table
from edgesod.errors import InputError, OutputError
from edgesod.files import sha256_of
from edgesod.processing.pictures import photograph
from edgesod.processing.preprocess import preprocess
from edgesod.recipe import recipe_for
from tests.helpers.pairs import write_pairs
from trainer import networks

ROOT = Path(__file__).parents[2]
NUM_PAIRS = 22  # two of them held out
RECIPE = """
network = "u2netp"
precision = "fp32"
validate_every = 4
[[stages]]
images = 8
size = 32
batch = 4
lr = 1e-3
"""


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The scripts' folder, from which they find each other."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return ROOT / "scripts"


@pytest.fixture
def ship(scripts: Path) -> ModuleType:
    import ship_checkpoint

    return ship_checkpoint


@pytest.fixture
def card(scripts: Path) -> ModuleType:
    import model_card

    return model_card


def as_downloaded(folder: Path) -> Path:
    """Write a set in the layout of DUTS-TR's download page."""
    write_pairs(folder, NUM_PAIRS)
    (folder / "images").rename(folder / "DUTS-TR-Image")
    (folder / "masks").rename(folder / "DUTS-TR-Mask")
    return folder


@pytest.mark.slow
def test_the_readmes_command_trains_and_ships(tmp_path: Path) -> None:
    (line,) = re.findall(
        r"^python (scripts/ship_checkpoint\.py .*?)\s*(?:#.*)?$", (ROOT / "README.md").read_text("utf-8"), re.M
    )
    data, run, shipped = as_downloaded(tmp_path / "DUTS-TR"), tmp_path / "run", tmp_path / "shipped"
    (tmp_path / "tiny.toml").write_text(RECIPE)
    words = [{"DUTS-TR": str(data), "runs/fast": str(run)}.get(word, word) for word in shlex.split(line)]
    assert str(data) in words
    assert str(run) in words
    words += ["--recipe", str(tmp_path / "tiny.toml"), "--calib-images", "2", "--into", str(shipped)]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr

    folder, table_file = shipped / "edgesod" / "models" / "u2netp", shipped / "calib" / "u2netp-320.json"
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert card["sha256"] == {file.name: sha256_of(file) for file in (folder / "u2netp.safetensors", folder / "u2netp.onnx")}
    assert card["training"]["images_seen"] == 8
    assert [entry["seen"] for entry in card["hold_out"]] == [4, 8]
    assert card["data"].endswith("20 of 22 pairs")
    assert card["scores"].keys() == {"hold-out"}
    assert card["scores"]["hold-out"]["n"] == 2
    assert {case["stem"] for case in card["worst"]["hold-out"]} == {"000", "020"}
    text = (folder / "README.md").read_text(encoding="utf-8")
    pictures = re.findall(r"\]\(([^):]+)\)", text)
    assert {"curve.svg", "photographs.jpg", "worst-hold-out.png", "fp16.csv"} <= set(pictures)
    assert all((folder / file).is_file() for file in pictures)
    recipe = recipe_for("u2netp", "int8")
    check_table(read_table(table_file), folder / "u2netp.onnx", recipe)

    # torch on the stored weights, and the ONNX, see the same; and what was stored are the averages that the run ended with
    network = networks.create("u2netp").eval()
    networks.load_weights(network, folder / "u2netp.safetensors")
    x = preprocess(photograph(), recipe)
    with torch.no_grad():
        expected = torch.sigmoid(network(torch.from_numpy(x))[0]).numpy()
    session = onnxruntime.InferenceSession(folder / "u2netp.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {session.get_inputs()[0].name: x})[0], expected, atol=1e-5)
    averages = load_file(run / "checkpoint-000000008" / "ema.safetensors")
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, averages[name], rtol=1e-3, atol=1e-6)
    assert (folder / "u2netp.safetensors").stat().st_size < 0.6 * (
        run / "checkpoint-000000008" / "ema.safetensors"
    ).stat().st_size


@pytest.mark.slow
def test_the_mean_of_two_ends_is_that_of_every_weight(ship: ModuleType, tmp_path: Path) -> None:
    shipped, other = zoo.shipped("u2netp").weights, tmp_path / "other.safetensors"
    network = networks.create("u2netp")
    save_file(network.state_dict(), other)
    found, first = load_file(ship._mean([shipped, other], "u2netp", tmp_path)), load_file(shipped)
    assert found.keys() == first.keys()
    for key, theirs in network.state_dict().items():
        if theirs.is_floating_point():
            assert torch.allclose(found[key], (first[key].float() + theirs) / 2, atol=1e-6), key
    assert networks.weights_metadata(tmp_path / "mean.safetensors") == networks.weights_metadata(shipped)


def test_the_documented_command_ships_a_variant_of_given_weights(tmp_path: Path) -> None:
    (line,) = re.findall(
        r"^python (scripts/ship_checkpoint\.py .*?--model u2netp-fast.*)$", (ROOT / "docs/training.md").read_text("utf-8"), re.M
    )
    data, shipped = as_downloaded(tmp_path / "DUTS-TR"), tmp_path / "shipped"
    (data / "DUTS-TR-Image").rename(data / "images")
    (data / "DUTS-TR-Mask").rename(data / "masks")
    data = data.rename(tmp_path / "tours")
    sod = write_pairs(tmp_path / "SOD", 4)
    words = [{"DUTS-TR": str(data), "SOD": str(sod)}.get(word, word) for word in shlex.split(line)]
    assert {str(data), str(sod)} <= set(words)
    words += ["--calib-images", "2", "--score-images", "2", "--into", str(shipped)]
    refused = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert f"give --licence for {data}" in refused.stderr
    words += ["--licence", "Made by this test."]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr

    folder, table_file = shipped / "edgesod" / "models" / "u2netp-fast", shipped / "calib" / "u2netp-fast-320.json"
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert card["sha256"] == {
        path.name: sha256_of(path) for path in (folder / "u2netp-fast.safetensors", folder / "u2netp-fast.onnx")
    }
    assert card["derived_from"] == "u2netp"
    assert card["made_of"] == {"file": "u2netp.safetensors", "sha256": sha256_of(zoo.shipped("u2netp").weights)}
    assert (card["training"]["images_seen"], card["training"]["last_recipe"], card["hold_out"]) == (0, None, [])
    assert {key: found["n"] for key, found in card["scores"].items()} == {"hold-out": 2, "SOD": 2}
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "not a published network" in text
    assert "Training**: none of its own" in text
    assert "u2netp's on SOD" in text
    assert "DUTS-TR" not in text
    assert "tours's hold-out" in text
    assert "**Licence**: Made by this test." in text
    assert {path.name for path in folder.iterdir()} == {
        *("README.md", "card.json", "fp16.csv", "photographs.jpg", "u2netp-fast.onnx", "u2netp-fast.safetensors"),
        *("worst-hold-out.png", "worst-sod.png"),
    }
    check_table(read_table(table_file), folder / "u2netp-fast.onnx", recipe_for("u2netp-fast", "int8"))
    session = onnxruntime.InferenceSession(folder / "u2netp-fast.onnx", providers=["CPUExecutionProvider"])
    whole = networks.create("u2netp").eval()
    networks.load_weights(whole, zoo.shipped("u2netp").weights)
    x = preprocess(photograph(), recipe_for("u2netp-fast", "fp32"))
    with torch.no_grad():
        d2, *others = whole(torch.from_numpy(x))[2:]
        expected = torch.sigmoid(whole.outconv(torch.cat((d2, d2, *others), 1))).numpy()
    np.testing.assert_allclose(session.run(None, {session.get_inputs()[0].name: x})[0], expected, atol=1 / 255)


def test_the_card_of_a_variant_that_was_trained_names_its_teacher(card: ModuleType) -> None:
    said = json.loads((zoo.shipped("u2netp").onnx.parent / "card.json").read_text(encoding="utf-8"))
    said |= {"name": "u2netp-fast", "derived_from": "u2netp", "made_of": None}
    said["training"]["last_recipe"]["teacher"] = {"network": "u2netp", "weights": None}
    text = card.card_text(said)
    assert "Its teacher was u2netp." in text
    assert f"images seen in {len(said['training']['runs'])} runs" in text
    assert "## Hold-out over images seen" in text


def test_weights_that_fp16_cannot_hold_are_shipped_as_they_are(tmp_path: Path, ship: ModuleType) -> None:
    recipe, source, target = recipe_for("u2netp", "fp32"), tmp_path / "ema.safetensors", tmp_path / "u2netp.safetensors"
    network = networks.create("u2netp")
    with torch.no_grad():
        network.stage1.rebnconvin.conv_s1.weight.mul_(1e7)  # batch normalisation behind it takes that out again, FP16 cannot
        network.stage1.rebnconvin.bn_s1.running_var.fill_(1e14)
    about = networks.WeightsMetadata("u2netp", recipe.preprocessing)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, source, about.to_strings())
    cv2.imwrite(str(tmp_path / "photograph.png"), photograph())
    stored = ship._store(source, target, recipe, [tmp_path / "photograph.png"])
    assert stored["stored"] == "FP32"
    assert target.read_bytes() == source.read_bytes()


def test_model_and_table_are_put_in_place_together_or_not_at_all(tmp_path: Path, ship: ModuleType) -> None:
    model, calib = tmp_path / "models" / "u2netp", tmp_path / "calib" / "u2netp-320.json"
    made = tmp_path / "made"
    for folder in (model, made):
        folder.mkdir(parents=True)
    (model / "card.json").write_text("old")
    (model / "worst-sod.png").write_text("the new card has none")
    (made / "card.json").write_text("new")
    (made / "table.json").write_text("new")
    calib.parent.write_text("a file where the tables' folder belongs")
    with pytest.raises(OutputError):
        ship._put_in_place([made / "card.json"], model, made / "table.json", calib)
    assert {file.name: file.read_text() for file in model.iterdir()}["card.json"] == "old"
    with pytest.raises(OutputError):
        ship._put_in_place([made / "card.json", made / "lost.png"], model, made / "table.json", tmp_path / calib.name)
    assert (model / "card.json").read_text() == "old"
    assert not (tmp_path / calib.name).exists()

    ship._put_in_place([made / "card.json"], model, made / "table.json", tmp_path / calib.name)
    assert {file.name: file.read_text() for file in model.iterdir()} == {"card.json": "new"}
    assert (tmp_path / calib.name).read_text() == "new"


def test_a_run_is_not_given_another_network(
    ship: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["ship", "--data", "set", "--checkpoint", "run", "--model", "u2netp-fast"])
    with pytest.raises(SystemExit):
        ship.main()
    assert "--model goes with --weights" in capsys.readouterr().err


def test_history_counts_over_runs_and_ends_with_the_checkpoint(tmp_path: Path, card: ModuleType) -> None:
    scores = {"validation_size": 32, "max_f": 0.5, "max_f_mean": 0.4, "mae": 0.2, "blank": 0.0}
    first = [{"seen": 3600, "loss": 1.0, "images_per_s": 1.0}, {"seen": 4000, **scores}]
    second = [{"seen": 7200, "loss": 1.0, "images_per_s": 4.0}, {"seen": 7200, **scores}, {"seen": 9000, **scores}]
    logs = [tmp_path / "first.jsonl", tmp_path / "second.jsonl"]
    for log, entries in zip(logs, (first, second), strict=True):
        log.write_text("".join(json.dumps(entry) + "\n" for entry in entries) + '{"seen": 99')  # killed while it wrote
    runs, validations = card.read_history(logs, last_seen=8000)
    assert runs == [{"images_seen": 4000, "hours": 1.0}, {"images_seen": 8000, "hours": 0.5}]
    assert [entry["seen"] for entry in validations] == [4000, 11200]

    shipped = {
        "training": {"runs": [*runs, {"images_seen": 500, "hours": None}], "images_seen": 12500},
        "hold_out": validations,
    }
    (tmp_path / "card.json").write_text(json.dumps(shipped))
    more, validations = card.read_history([tmp_path / "card.json", logs[1]], last_seen=8000)
    assert more == [*runs, {"images_seen": 500, "hours": None}, {"images_seen": 8000, "hours": 0.5}]
    assert [entry["seen"] for entry in validations] == [4000, 11200, 19700]


@pytest.mark.parametrize("missing", ["log.jsonl", "earlier.jsonl", "SOD"])
def test_what_is_missing_is_told_before_anything_is_made(
    tmp_path: Path, ship: ModuleType, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    checkpoint = tmp_path / "run" / "checkpoint-000000008"
    checkpoint.mkdir(parents=True)
    (checkpoint / "record.json").write_text(json.dumps({"recipe": {"network": "u2netp"}, "images_seen": 8}))
    for file in {checkpoint.parent / "log.jsonl", tmp_path / "earlier.jsonl"}:
        if file.name != missing:
            file.write_text("")
    words = ["--data", write_pairs(tmp_path / "set", 2), "--checkpoint", checkpoint, "--history", tmp_path / "earlier.jsonl"]
    words += ["--sod", tmp_path / "SOD" if missing == "SOD" else tmp_path / "set", "--into", tmp_path / "shipped"]
    words += ["--licence", "Made by this test."]
    monkeypatch.setattr("sys.argv", ["ship", *map(str, words)])
    monkeypatch.setattr(ship, "_store", lambda *_: pytest.fail("it began"))
    with pytest.raises(InputError, match=missing):
        ship.main()


def test_worst_cases_are_the_worst_and_in_order(tmp_path: Path, card: ModuleType) -> None:
    from edgesod.evaluation import EvaluationSet
    from edgesod.types import Result

    pairs = EvaluationSet(write_pairs(tmp_path / "set", 12))
    wrong = dict(zip(pairs.stems, np.random.default_rng(0).permutation(12) / 12, strict=True))
    shown = iter(pairs.stems)

    def runtime(_: np.ndarray) -> Result:
        stem = next(shown)
        truth = pairs.read(stem)[1] > 127
        return Result(np.abs(truth - np.float32(wrong[stem])), truth.shape)

    _, worst = card.score(runtime, pairs, pairs.stems)
    assert [case.stem for case in worst] == sorted(wrong, key=lambda stem: -wrong[stem])[:8]
    np.testing.assert_allclose([case.mae for case in worst], sorted(wrong.values(), reverse=True)[:8], atol=1e-6)
