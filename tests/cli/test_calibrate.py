"""``edgesod calibrate``: table, range check and sensitivity, each with its files; and FP16 builds heed the range check."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from skimage import data

from edgesod.builder import build
from edgesod.calibration.table import CalibrationTable, read_table
from edgesod.cli import calibrate
from edgesod.errors import InputError, OutputError, UsageError
from edgesod.files import sha256_of
from edgesod.manifest import read_manifest
from edgesod.runtime import open_session
from tests.helpers.engines import RECIPE, write_tiny
from tests.helpers.pairs import split_pairs, write_pairs


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("cat", "coffee"):
        cv2.imwrite(str(folder / f"{name}.png"), np.ascontiguousarray(getattr(data, name)()[:, :, ::-1]))
    return folder


def _json(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    return dict(json.loads(capsys.readouterr().out))


def test_one_table_gives_both_reports(tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_tiny(tmp_path / "tiny.onnx", channels=1)
    out = tmp_path / "made" / "tiny.json"
    calibrate.command(images=[photos], onnx=source, out=out, as_json=True)
    told = capsys.readouterr()
    assert json.loads(told.out)["images"] == 2
    assert "warning: 2 images are few" in told.err
    kept = out.read_bytes()
    calibrate.command(onnx=source, table=out, ranges=True, out=out, as_json=True)
    found = _json(capsys)
    ranges = read_table(out).ranges
    assert out.read_bytes() == kept
    assert found["ranges"] == {
        "csv": str(tmp_path / "made" / "tiny-ranges.csv"),
        "layers": 2,
        "largest": max(abs(value) for by_method in ranges.values() for value in by_method["minmax"]),
        "stay_fp32": [],
    }
    calibrate.command(onnx=source, table=out, ranges=True, out=out)
    assert "fits" in capsys.readouterr().out


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """The ONNX of a network of three layers to measure, which is none that is shipped."""
    from edgesod import zoo
    from edgesod.export.about import About, write_about
    from edgesod.export.torch_export import export_onnx
    from edgesod.recipe import Preprocessing
    from tests.calibration.conftest import SIZE_HW, Chain

    source = tmp_path / "chain.onnx"
    export_onnx(Chain().eval(), SIZE_HW, source)
    write_about(source, source, About("chain", Preprocessing()))
    assert "chain" not in zoo.names()
    return source


def test_sensitivity_is_a_table_and_a_picture(
    tmp_path: Path, photos: Path, chain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "chain.json"
    for scheme in calibrate.Scheme:
        calibrate.command(images=[photos], onnx=chain, sensitivity=True, scheme=scheme, threads=1, out=out, as_json=True)
        found = _json(capsys)["sensitivity"]
        assert isinstance(found, dict)
        assert (found["scheme"], found["images"], len(found["drift"])) == (scheme.value, 2, 3)
        assert cv2.imread(found["picture"]).std() > 5
        assert Path(found["csv"]).read_text().count("\n") == 4
    assert not list(tmp_path.glob("*.partial"))
    calibrate.command(images=[photos], onnx=chain, table=out, sensitivity=True, threads=1, out=out)
    shown = capsys.readouterr()
    assert f"ONNX {sha256_of(chain)[:12]}, cpu scheme" in " ".join((shown.out + shown.err).split())


def test_sensitivity_goes_on_where_it_was_stopped(
    tmp_path: Path, photos: Path, chain: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, report, kept = (tmp_path / name for name in ("chain.json", "chain-sensitivity.csv", "chain-sensitivity.partial"))
    calibrate.command(images=[photos], onnx=chain, sensitivity=True, threads=1, out=out)
    whole = report.read_bytes()
    report.unlink()
    sessions: list[Path] = []

    def stopped_in_the_third(path: Path, *arguments: object) -> object:
        sessions.append(path)
        if len(sessions) == 3:
            raise KeyboardInterrupt
        return open_session(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("edgesod.calibration.sensitivity.open_session", stopped_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        calibrate.command(images=[photos], onnx=chain, table=out, sensitivity=True, threads=1, out=out)
    assert len(json.loads(kept.read_text())["found"]) == 1  # the first session was FP32's
    assert not report.exists()
    said = " ".join(capsys.readouterr().err.split())
    assert f"{kept} has the layers that are done, and the same command with --table {out} goes on from there" in said
    calibrate.command(images=[photos], onnx=chain, table=out, sensitivity=True, threads=1, out=out)
    assert len(sessions) == 3 + 3
    assert report.read_bytes() == whole
    assert not kept.exists()


def test_threads_reach_the_measuring(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int | None] = []
    monkeypatch.setattr("edgesod.calibration.ranges.resolve_threads", lambda threads: asked.append(threads) or 1)
    calibrate.command(images=[photos], onnx=write_tiny(tmp_path / "tiny.onnx"), threads=3, out=tmp_path / "tiny.json")
    assert set(asked) == {3}


def test_a_place_that_cannot_be_written_is_told_before_anything_is_measured(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgesod.calibration.calibrate", lambda *_, **__: pytest.fail("measured in vain"))
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="cannot write"):
        calibrate.command(images=[photos], onnx=write_tiny(tmp_path / "tiny.onnx"), out=tmp_path / "file/tiny.json")


def test_images_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names no JSON file"):
        calibrate.command(onnx=tmp_path / "tiny.onnx", images=[tmp_path], out=tmp_path / "cat.png")
    with pytest.raises(UsageError, match="needs images"):
        calibrate.command(onnx=write_tiny(tmp_path / "tiny.onnx"))
    with pytest.raises(UsageError, match="needs images"):
        calibrate.command(onnx=tmp_path / "tiny.onnx", table=tmp_path / "tiny.json", sensitivity=True)
    source = write_tiny(tmp_path / "tiny.onnx")
    cv2.imwrite(str(tmp_path / "flat.png"), np.full((32, 48, 3), 128, np.uint8))
    with pytest.raises(InputError, match="no layer to measure"):
        calibrate.command(onnx=source, images=[tmp_path], sensitivity=True, out=tmp_path / "tiny.json")


def test_a_set_calibrates_as_a_tar_or_in_parts_as_its_pictures_do(tmp_path: Path) -> None:
    source, whole = write_tiny(tmp_path / "tiny.onnx"), write_pairs(tmp_path / "set", 5)
    parts = split_pairs(whole, tmp_path / "parts")
    tables = []
    for k, places in enumerate(([whole / "images"], [whole], parts, [parts[1]])):
        calibrate.command(images=places, onnx=source, out=tmp_path / f"{k}.json", threads=1)
        tables.append(read_table(tmp_path / f"{k}.json"))
    assert [(table.images, table.num_images) for table in tables] == [
        ("images", 5),
        ("set", 5),
        ("half-0, half-1", 5),
        ("half-1", 2),
    ]
    lowest_and_highest = [{name: ranges["minmax"] for name, ranges in table.ranges.items()} for table in tables]
    assert lowest_and_highest[0] == lowest_and_highest[1] == lowest_and_highest[2] != lowest_and_highest[3]
    with pytest.raises(InputError, match=r"there is no image in .*masks"):
        calibrate.command(images=[parts[1], whole / "masks"], onnx=source, out=tmp_path / "none.json")


def test_a_build_calibrates_on_the_parts_of_a_set(tmp_path: Path) -> None:
    source, whole = write_tiny(tmp_path / "tiny.onnx"), write_pairs(tmp_path / "set", 5)
    parts = split_pairs(whole, tmp_path / "parts")
    calibrate.command(images=[whole], onnx=source, out=tmp_path / "whole.json")
    steps: list[str] = []
    recipe = RECIPE.model_copy(update={"precision": "int8", "gate": RECIPE.gate.model_copy(update={"map_mae": 1.0})})
    folder = build(recipe, source, table=parts, verify=parts, backend="onnxruntime", root=tmp_path, on_step=steps.append)
    assert f"calibrating on {parts[0]}, {parts[1]}" in steps
    made, expected = read_table(folder / "calibration.json"), read_table(tmp_path / "whole.json")
    for tensor, ranges in expected.ranges.items():
        assert made.ranges[tensor]["minmax"] == ranges["minmax"]
    manifest = read_manifest(folder)
    assert manifest.gate.images == "half-0, half-1, with ground truth"
    assert "--calib FILE" in manifest.given
    with pytest.raises(UsageError, match=r"whole\.json is no folder or tar of images"):
        build(recipe, source, table=[tmp_path / "whole.json", parts[1]], root=tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "nothing was asked"),
        ({"ranges": True, "limit": 4}, "--limit 4"),
        ({"ranges": True, "threads": 1}, "runs nothing"),
        ({"ranges": True, "images": [Path("photos")]}, "nothing would come of --images photos: .* runs nothing"),
    ],
)
def test_options_that_would_do_nothing_beside_a_table_are_refused(
    tmp_path: Path, options: dict[str, object], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        calibrate.command(onnx=tmp_path / "tiny.onnx", table=tmp_path / "tiny.json", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"scheme": calibrate.Scheme.tensorrt}, {"sensitivity_images": 4}])
def test_options_of_the_sensitivity_are_refused_without_it(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="they are about --sensitivity"):
        calibrate.command(onnx=tmp_path / "tiny.onnx", images=[tmp_path], **options)  # type: ignore[arg-type]


def test_an_fp16_engine_keeps_layers_without_headroom_in_fp32(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, table = write_tiny(tmp_path / "tiny.onnx"), tmp_path / "tiny.json"
    calibrate.command(images=[photos], onnx=source, out=table)
    capsys.readouterr()
    recipe = RECIPE.model_copy(update={"precision": "fp16"})
    steps: list[str] = []
    roomy = build(recipe, source, table=table, root=tmp_path / "roomy", on_step=steps.append)
    assert any("every layer has room" in step for step in steps)
    values = read_table(table).model_dump()
    values["ranges"]["logits"]["minmax"] = (-60_000.0, 60_000.0)
    CalibrationTable.model_validate(values).write(table)
    tight = build(recipe, source, table=table, root=tmp_path / "tight", on_step=steps.append)
    assert any("2 layers stay in FP32" in step for step in steps)
    unchecked = build(recipe, source, root=tmp_path / "unchecked", on_step=steps.append)
    assert any("none is checked against FP16's" in step for step in steps)
    casts = {
        folder: [n.op_type for n in onnx.load(str(folder / "engine.onnx")).graph.node].count("Cast")
        for folder in (roomy, tight, unchecked)
    }
    assert casts[roomy] == casts[unchecked] > 0
    assert casts[tight] == 0
