"""Bad input ends with the right exit code, a sentence that says what to do, and no traceback."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import TensorProto, helper, save

from edgesod import assets, zoo
from edgesod.stream.tour import write_tour
from tests.helpers.cli import ROOT, edgesod, engine_int8
from tests.helpers.pairs import write_pairs

__all__ = ["engine_int8"]


def _fails(code: int, *words: str, says: str, cwd: Path, **env: str) -> str:
    done = edgesod(*words, cwd=cwd, **env)
    assert done.returncode == code, f"exit {done.returncode}: {done.stderr}"
    assert "Traceback" not in done.stderr + done.stdout
    assert says in done.stderr, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["run", "--video", "absent.mp4"], 3, "absent.mp4"),
        (["run", "--image", "absent.png"], 3, "absent.png"),
        (["run", "--image", "."], 3, "no picture"),
        (["run", "--camera", "63"], 3, "camera 63"),
        (["run"], 2, "there is no input"),
        (["run", "--video", "absent.mp4", "--effect", "sparkle"], 2, "no effect 'sparkle'"),
        (["run", "--video", "absent.mp4", "--engine", "absent"], 3, "absent"),
        (["run", "--video", "absent.mp4", "--token", "x y"], 2, "--token is for the page"),
        (["run", "--video", "absent.mp4", "--background", "absent.jpg"], 2, "try: --effect replace"),
        (["run", "rtsp:/me:secret@cam/1"], 2, "try: rtsp://***@cam/1"),
        (["bench", "--model", "u2netp", "--int8"], 3, "edgesod build --model u2netp --int8"),
        (["build", "--model", "nonesuch", "--int8"], 3, "nonesuch"),
        (["build", "--model", "u2netp", "--int8", "--fp16"], 2, "one precision at a time"),
        (["build", "--model", "u2netp", "--backend", "tensorrt", "--fp32"], 4, "TensorRT"),
        (["build", "--model", "u2netp", "--backend", "nonesuch", "--fp32"], 2, "nonesuch"),
        (["build", "--model", "u2netp", "--int8", "--verify", "absent"], 3, "absent"),
        (["build", "--model", "u2netp", "--int8", "--calib", "."], 3, "no image"),
        (["build", "--model", "u2netp", "--int8", "--calib", "absent.json"], 3, "absent.json"),
        (["build", "--onnx", "absent.onnx", "--fp32"], 3, "absent.onnx"),
        (["build", "--model", "u2netp", "--weights", "absent.pth", "--fp32"], 3, "absent.pth"),
        (["build", "--recipe", "absent.toml"], 3, "absent.toml"),
        (["calibrate", "--model", "u2netp", "--images", "absent"], 3, "absent"),
        (["inspect", "--engine", "absent"], 3, "absent"),
        (["inspect", "--engine", "absent", "--fp32"], 2, "names model and precision already"),
        (["bench", "--engine", "absent"], 3, "absent"),
        (["bench", "--engine", "absent", "--backend", "nonesuch"], 2, "no backend 'nonesuch'"),
        (["eval", "--data", "absent", "--model", "u2netp", "--fp32"], 3, "absent"),
        (["eval", "--data", "absent"], 2, "nothing to score"),
        (["eval", "--data", "absent", "--maps", "absent", "--int8"], 2, "not int8"),
        (["build", "--model", "u2netp", "--fp32", "--size", "64"], 2, "--size goes with --weights"),
        (["build", "--model", "u2netp", "--fp32", "--calib", "."], 2, "calibration is for INT8 and FP16"),
        (["export", "--model", "nonesuch", "--weights", "absent.pth"], 2, "no network 'nonesuch'"),
        (["train", "--data", "absent", "--out", "run"], 3, "absent"),
        (["nonesuch"], 2, "nonesuch"),
        (["run", "--nonesuch"], 2, "nonesuch"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_refused(tmp_path: Path, words: list[str], code: int, says: str) -> None:
    _fails(code, *words, says=says, cwd=tmp_path)
    assert not list(tmp_path.iterdir()), "something was left behind"


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40], ids=["empty", "text", "cut"])
def test_unreadable_picture(tmp_path: Path, engine_int8: Path, content: bytes) -> None:
    (tmp_path / "x.png").write_bytes(content)
    _fails(3, "run", "--engine", str(engine_int8), "--image", "x.png", "--out", "y.png", says="x.png", cwd=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


@pytest.mark.parametrize("shape", [(1, 1, 3), (40, 60), (40, 60, 4), (8, 20_000, 3), (32, 32, 3)], ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_odd_pictures_work(tmp_path: Path, engine_int8: Path, shape: tuple[int, ...], dtype: type) -> None:
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    cv2.imwrite(str(tmp_path / "x.png"), image)
    done = edgesod("run", "--engine", str(engine_int8), "--image", "x.png", "--out", "y.png", "--effect", "mask", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert cv2.imread(str(tmp_path / "y.png")).shape[:2] == shape[:2]


def test_damaged_videos(tmp_path: Path, engine_int8: Path) -> None:
    write_tour(tmp_path / "whole.mp4", seconds=1)
    content = (tmp_path / "whole.mp4").read_bytes()
    for name, part in (("half.mp4", content[: len(content) // 2]), ("text.mp4", b"not a video"), ("empty.mp4", b"")):
        (tmp_path / name).write_bytes(part)
        _fails(3, "run", "--engine", str(engine_int8), "--video", name, "--out", "out.mp4", says=name, cwd=tmp_path)


def test_engine_folder_that_was_changed(tmp_path: Path, engine_int8: Path) -> None:
    for name in ("engine.onnx", "model.onnx"):
        folder = tmp_path / name.removesuffix(".onnx")
        shutil.copytree(engine_int8, folder)
        with open(folder / name, "ab") as file:
            file.write(b"\0")
        _fails(4, "inspect", "--engine", str(folder), says="edgesod build --model u2netp --int8", cwd=tmp_path)
        (folder / name).unlink()
        _fails(4, "inspect", "--engine", str(folder), says=f"lacks {name}", cwd=tmp_path)


@pytest.mark.parametrize("change", [{"architecture": "riscv64"}, {"architecture": "aarch64"}], ids=str)
def test_engine_of_another_machine(tmp_path: Path, engine_int8: Path, change: dict[str, str]) -> None:
    folder = tmp_path / "engine"
    shutil.copytree(engine_int8, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["device"] |= change
    (folder / "manifest.json").write_text(json.dumps(manifest))
    _fails(4, "inspect", "--engine", str(folder), says=change["architecture"], cwd=tmp_path)


@pytest.mark.parametrize("content", [b"", b"{}", b"[", b'{"schema_version": 1}'], ids=str)
def test_broken_manifest(tmp_path: Path, engine_int8: Path, content: bytes) -> None:
    folder = tmp_path / "engine"
    shutil.copytree(engine_int8, folder)
    (folder / "manifest.json").write_bytes(content)
    _fails(3, "inspect", "--engine", str(folder), says="manifest", cwd=tmp_path)


def test_tables_that_do_not_fit(tmp_path: Path) -> None:
    table = json.loads((assets.tables() / "u2netp-320.json").read_text())
    (tmp_path / "corrupt.json").write_text(json.dumps(table)[:1000])
    _fails(3, "build", "--model", "u2netp", "--int8", "--calib", "corrupt.json", says="corrupt.json", cwd=tmp_path)
    table["onnx_sha256"] = "0" * 64
    (tmp_path / "other.json").write_text(json.dumps(table))
    _fails(3, "build", "--model", "u2netp", "--int8", "--calib", "other.json", says="edgesod calibrate", cwd=tmp_path)
    assert not (tmp_path / "engines").exists() or not list((tmp_path / "engines").iterdir())


def test_onnx_files_that_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not an ONNX")
    _fails(3, "build", "--onnx", "text.onnx", "--fp32", says="text.onnx", cwd=tmp_path)
    flat = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "flat",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 7])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 7])],
    )
    save(helper.make_model(flat, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(tmp_path / "flat.onnx"))
    _fails(3, "build", "--onnx", "flat.onnx", "--fp32", says="(1, 7)", cwd=tmp_path)


def test_another_input_name_is_fine(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(str(zoo.shipped("u2netp").onnx))
    old, new = model.graph.input[0].name, "pixel_values"
    model.graph.input[0].name = new
    for node in model.graph.node:
        for k, name in enumerate(node.input):
            if name == old:
                node.input[k] = new
    save(model, str(tmp_path / "renamed.onnx"))
    done = edgesod("build", "--onnx", "renamed.onnx", "--fp32", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["drift"]["map_mae"] < 1e-4


def test_weights_that_are_no_state_dict(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="reading weights needs torch")
    (tmp_path / "list.pth").write_bytes(pickle.dumps([1, 2]))
    (tmp_path / "code.pth").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    (tmp_path / "text.pth").write_text("not weights")
    for name in ("list.pth", "code.pth", "text.pth"):
        _fails(3, "export", "--model", "u2netp", "--weights", name, says=name, cwd=tmp_path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.skipif(os.name != "posix" or not hasattr(os, "geteuid"), reason="needs POSIX file limits")
def test_disk_that_fills_up(tmp_path: Path, engine_int8: Path) -> None:
    write_tour(tmp_path / "clip.mp4", seconds=1)
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); from edgesod.cli import main;"
        "sys.argv = ['edgesod', *sys.argv[1:]]; main()"
    )
    for words in (
        ["run", "--engine", str(engine_int8), "--video", "clip.mp4", "--out", "out.mp4"],
        ["build", "--model", "u2netp", "--fp32"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", script, *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 5, done.stderr
        assert "Traceback" not in done.stderr
    assert {p.name for p in tmp_path.iterdir()} <= {"clip.mp4", "engines"}
    assert not list((tmp_path / "engines").glob("*")) if (tmp_path / "engines").exists() else True


def test_output_that_is_the_input_is_refused(tmp_path: Path, engine_int8: Path) -> None:
    write_pairs(tmp_path / "set", 2)
    before = {path: path.read_bytes() for path in (tmp_path / "set" / "images").iterdir()}
    picture = str(min(before))
    for words in (["--image", "set/images", "--out", "set/images"], ["--image", picture, "--out", picture]):
        _fails(2, "run", "--engine", str(engine_int8), *words, says="would overwrite the input", cwd=tmp_path)
    assert {path: path.read_bytes() for path in (tmp_path / "set" / "images").iterdir()} == before


def test_wrong_outputs_are_refused_before_anything_is_built(tmp_path: Path) -> None:
    write_pairs(tmp_path / "set", 1)
    for option, name, code in (("--contact-sheet", "sheet.jpg", 2), ("--out", "set/images/000.jpg/out.mp4", 5)):
        done = edgesod("run", "--image", "set/images/000.jpg", option, name, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert "building it" not in done.stderr


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(str(zoo.shipped("u2netp").onnx))
    onnx.save(model, str(tmp_path / "outside.onnx"), save_as_external_data=True, location="outside.data")
    _fails(3, "build", "--onnx", "outside.onnx", "--fp32", says="in another file", cwd=tmp_path)


def test_unwritable_output(tmp_path: Path, engine_int8: Path) -> None:
    write_tour(tmp_path / "clip.mp4", seconds=1)
    (tmp_path / "file").write_text("")
    words = ["run", "--engine", str(engine_int8), "--video", "clip.mp4", "--out", "file/out.mp4"]
    _fails(5, *words, says="file/out.mp4", cwd=tmp_path)
    _fails(5, "build", "--model", "u2netp", "--fp32", "--out", "file/engines", says="file/engines", cwd=tmp_path)
