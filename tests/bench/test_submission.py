"""The file of ``edgesod bench --submit``: everything needed to read the numbers, nothing about a person or a place."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from edgesod.bench import BenchReport
from edgesod.bench.board import Board, Clock
from edgesod.bench.submission import write_submission
from edgesod.manifest import Gpu, TensorRtBuild, read_manifest
from edgesod.runtime import Runtime
from edgesod.timing import LatencySummary
from tests.helpers.cli import edgesod
from tests.helpers.engines import make_engine

ORIN = Gpu(name="Orin", compute_capability=(8, 7), memory_bytes=8 << 30, is_integrated=True, driver=(12, 6))


def test_it_is_written_beside_the_table(tmp_path: Path) -> None:
    engine, target = make_engine(tmp_path / "secret-place" / "tiny"), tmp_path / "new" / "board.json"
    done = edgesod(
        "bench", "--engine", str(engine), "--duration", "0.05", "--no-roofline", "--submit", str(target), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "fps" in done.stdout
    assert "pull request" in done.stderr
    text = target.read_text(encoding="utf-8")
    value = json.loads(text)
    assert (value["model"], value["precision"], value["backend"]) == ("tiny", "fp32", "onnxruntime")
    assert {"p50", "p90", "p95", "p99"} <= value["latency_ms"].keys()
    assert value["throughput_fps"] > 0
    assert value["environment"]["versions"]["onnxruntime"]
    assert value["gate"]["map_mae"] == 0
    personal = {"secret-place", str(tmp_path), os.path.expanduser("~"), socket.gethostname()}
    assert [word for word in personal if len(word) > 4 and word in text] == []


def test_what_tensorrt_built_and_a_boards_warnings_are_in_it(tmp_path: Path) -> None:
    folder = make_engine(tmp_path / "tiny")
    built = TensorRtBuild(version="10.3.0", gpu=ORIN, typing="weak", layers={"fp16": 3})
    manifest = read_manifest(folder).model_copy(update={"tensorrt": built})
    board = Board("Jetson Orin Nano", "36.4.3", "6.2", "15W", {"gpu": Clock(300, 300, 600)}, "schedutil")
    report = BenchReport(LatencySummary.from_ms([1, 2]), {}, 500.0, (720, 1280), ("unstable",))
    with Runtime(folder) as runtime:
        write_submission(tmp_path / "board.json", runtime, report, board, manifest)
    value = json.loads((tmp_path / "board.json").read_text(encoding="utf-8"))
    assert value["gpu"]["name"] == "Orin"
    assert (value["tensorrt"]["version"], value["tensorrt"]["layers"]) == ("10.3.0", {"fp16": 3})
    assert value["board"] == {
        "model": "Jetson Orin Nano",
        "l4t": "36.4.3",
        "jetpack": "6.2",
        "power_mode": "15W",
        "clocks": {"gpu": {"mhz": 300, "lowest_mhz": 300, "highest_mhz": 600, "is_fixed": False}},
        "governor": "schedutil",
    }
    assert len(value["warnings"]) == 2


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "tiny")
    (tmp_path / "file").write_text("")
    target = str(tmp_path / "file" / "board.json")
    done = edgesod("bench", "--engine", str(engine), "--duration", "0.05", "--no-roofline", "--submit", target, cwd=tmp_path)
    assert done.returncode == 5
    assert "Traceback" not in done.stderr
