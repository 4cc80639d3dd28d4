"""Every command does what it says, seen from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from skimage import data

from edgesod.stream.tour import write_tour
from tests.helpers.cli import ROOT, built_engine, edgesod, engine_int8

__all__ = ["engine_int8"]

COMMANDS = ("run", "build", "bench", "compare", "models", "inspect", "doctor", "demo", "calibrate", "export", "eval", "train")


def _frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str, tmp_path: Path) -> None:
    done = edgesod(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert command in done.stdout


def test_run_writes_every_frame_and_one_json_object(tmp_path: Path, engine_int8: Path) -> None:
    write_tour(tmp_path / "clip.mp4", seconds=1, fps=20)
    words = [
        "run",
        "--engine",
        str(engine_int8),
        "--video",
        "clip.mp4",
        "--out",
        "out.mp4",
        "--contact-sheet",
        "sheet.png",
        "--json",
    ]
    done = edgesod(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["frames"] == 20 == len(_frames(tmp_path / "out.mp4"))
    assert (report["model"], report["precision"], report["backend"], report["size"]) == (
        "u2netp",
        "int8",
        "openvino",
        [320, 320],
    )
    assert {"capture", "preprocess", "inference", "postprocess", "render", "sink", "end_to_end"} <= report["stages_ms"].keys()
    for stage in report["stages_ms"].values():
        assert 0 <= stage["p50"] <= stage["p90"] <= stage["p95"] <= stage["p99"]
    assert list(report["paper"].values()) == pytest.approx([report["fps"] / fps for fps in (25, 30, 40)], rel=0.01)
    assert cv2.imread(str(tmp_path / "sheet.png")) is not None
    assert {p.name for p in tmp_path.iterdir()} == {"clip.mp4", "out.mp4", "sheet.png"}


@pytest.mark.parametrize("effect", ["overlay", "mask", "cutout", "blur", "green"])
def test_effects_on_a_picture(tmp_path: Path, engine_int8: Path, effect: str) -> None:
    cv2.imwrite(str(tmp_path / "cat.png"), np.ascontiguousarray(data.cat()[:, :, ::-1]))
    done = edgesod(
        "run", "--engine", str(engine_int8), "--image", "cat.png", "--out", "out.png", "--effect", effect, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    out = cv2.imread(str(tmp_path / "out.png"), cv2.IMREAD_UNCHANGED)
    assert out.shape == (300, 451, 4 if effect == "cutout" else 3)
    assert "wrote out.png" in done.stderr
    assert ": 1 frame, " in done.stdout
    assert "the paper's" not in done.stdout, "one picture is no speed"


def test_interrupted_run_ends_with_statistics_and_a_playable_file(tmp_path: Path, engine_int8: Path) -> None:
    write_tour(tmp_path / "clip.mp4", seconds=60, fps=25, size_wh=(320, 240))
    words = ["run", "--engine", str(engine_int8), "--video", "clip.mp4", "--out", "out.mp4", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "edgesod", *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 240
    while sum(path.stat().st_size for path in tmp_path.glob(".out-*")) < 20_000 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    report = json.loads(out)
    assert report["interrupted"] is True
    assert 0 < report["frames"] < 1500
    assert len(_frames(tmp_path / "out.mp4")) == report["frames"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_interrupted_while_the_engine_is_built_nothing_stays(tmp_path: Path, number: signal.Signals) -> None:
    write_tour(tmp_path / "clip.mp4", seconds=1, fps=25, size_wh=(320, 240))
    engines = tmp_path / "engines"
    process = subprocess.Popen(
        [sys.executable, "-m", "edgesod", "run", "clip.mp4", "--out", "out.mp4"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "EDGESOD_ENGINES": str(engines)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 240
    while not list(engines.glob(".u2netp-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "building it" in errors
    assert "Traceback" not in errors
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["clip.mp4"]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_build_json(tmp_path: Path, precision: str) -> None:
    done = edgesod("build", "--model", "u2netp", f"--{precision}", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    built = json.loads(done.stdout)
    assert (tmp_path / built["engine"] / "manifest.json").is_file()
    assert built["precision"] == precision
    assert built["drift"]["map_mae"] < 0.002
    assert built["speedup"] > 0


def test_bf16_is_built_where_the_cpu_has_it_and_refused_elsewhere(tmp_path: Path) -> None:
    import openvino

    done = edgesod("build", "--model", "u2netp", "--bf16", "--json", cwd=tmp_path)
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["drift"]["map_mae"] < 0.01
    else:
        assert done.returncode == 4, done.stderr


def test_engines_go_where_the_environment_says(tmp_path: Path) -> None:
    done = edgesod("build", "--model", "u2netp", "--fp32", cwd=tmp_path, EDGESOD_ENGINES=str(tmp_path / "elsewhere"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "elsewhere" / "u2netp-320-fp32")


def test_inspect_bench_doctor_models(tmp_path: Path, engine_int8: Path) -> None:
    inspected = json.loads(edgesod("inspect", "--engine", str(engine_int8), "--json", cwd=tmp_path).stdout)
    assert inspected["recipe"]["precision"] == "int8"
    benched = json.loads(edgesod("bench", "--engine", str(engine_int8), "--duration", "0.2", "--json", cwd=tmp_path).stdout)
    assert benched["throughput_fps"] > 0
    assert benched["latency_ms"]["n"] >= 10
    assert {"preprocess", "inference", "postprocess", "end_to_end"} <= benched["stages_ms"].keys()
    doctor = json.loads(edgesod("doctor", "--json", cwd=tmp_path).stdout)
    told = {
        "backend openvino",
        "backend onnxruntime",
        "Python",
        "cameras by V4L2",
        "CSI cameras",
        "page (--web)",
        "heat and power",
    }
    assert told <= {check["what"] for check in doctor["checks"]}
    models = json.loads(edgesod("models", "--json", cwd=tmp_path).stdout)["models"]
    assert models[0]["name"] == "u2netp"
    for words in (["inspect", "--engine", str(engine_int8)], ["doctor"], ["models"]):
        assert edgesod(*words, cwd=tmp_path).returncode == 0


def test_eval_scores_a_folder_of_maps_and_an_engine(tmp_path: Path, engine_int8: Path) -> None:
    from tests.helpers.pairs import write_pairs

    write_pairs(tmp_path / "set", 6)
    keys = {"n", "mae", "max_f", "max_f_mean", "mean_f", "adp_f", "weighted_f", "s_measure", "e_measure"}
    perfect = json.loads(edgesod("eval", "--data", "set", "--maps", "set/masks", "--json", cwd=tmp_path).stdout)
    assert keys <= perfect.keys()
    assert perfect["n"] == 6
    assert perfect["mae"] == 0
    assert perfect["max_f"] == pytest.approx(1)
    done = edgesod("eval", "--data", "set", "--engine", str(engine_int8), "--out", "curves", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["mae"] < 1
    assert {p.name for p in (tmp_path / "curves").iterdir()} == {"curves.png", "curves.csv"}


def test_default_engine_is_built_when_missing(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "cat.png"), np.ascontiguousarray(data.cat()[:, :, ::-1]))
    for says in (True, False):
        done = edgesod("run", "--image", "cat.png", "--out", "out.png", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert ("building it" in done.stderr) is says


def test_ctrl_c_while_python_still_reads_the_files_ends_as_later_on(tmp_path: Path) -> None:
    code = """
import sys
class Interrupted:
    def find_spec(self, name, *_):
        if name == "edgesod.cli.app":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
from edgesod.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_import_and_help_need_no_torch(tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from edgesod.cli import main; sys.argv = ['edgesod', *{!r}]; main()"
    for words in (["--help"], ["models"], ["inspect", "--engine", str(built_engine("int8"))]):
        done = subprocess.run([sys.executable, "-c", code.format(words)], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
