"""The GPU suite, rehearsed: everything but the GPU, on a network of one convolution in U²-NetP's place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.helpers.engines import write_tiny

ROOT = Path(__file__).parents[2]
SIZE = 64


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with pictures, and an ONNX where the suite would put the one that torch exports."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "work").mkdir()
    rng = np.random.default_rng(0)
    for k in range(2):
        picture = cv2.resize(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), (96, 80))
        cv2.imwrite(str(tmp_path / "pictures" / f"{k}.png"), picture)
    write_tiny(tmp_path / "work" / f"u2netp-{SIZE}.onnx", (SIZE, SIZE))
    return tmp_path


def suite(place: Path, version: str = "8.5.3.1", *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "gpu_suite.py"), "--rehearse", version, "--size", str(SIZE)]
    command += ["--images", str(place / "pictures"), "--out", str(place / "out"), "--work", str(place / "work")]
    command += ["--networks", "u2netp", "--precisions", "fp32", "fp16", "--torch-modes", "--seconds", "0.05", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=os.environ | env)


def results(place: Path, version: str = "8.5.3.1") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place / "out" / f"rehearsal-{version}.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("version", ["8.5.3.1", "11.4.0.106"])
def test_a_rehearsal_does_everything_and_cannot_be_taken_for_a_measurement(place: Path, version: str) -> None:
    done = suite(place, version, "--peaks", "4800,494,989,1979")
    assert done.returncode == 0, done.stderr
    found = results(place, version)
    assert (found["kind"], found["tensorrt"]) == ("rehearsal", version)
    assert found["engines"].keys() == {"u2netp-64-fp32", "u2netp-64-fp16"}
    for engine in found["engines"].values():
        assert engine["rehearsal"] == "not a measurement"
        assert engine["with_graph"]["graph_reason"] == ""
        assert engine["without_graph"]["graph_reason"] == "not asked for"
        assert engine["with_graph"]["stages_ms"]["compute"]["n"] >= 10
        assert engine["gate"]["mask_iou"] > 0.99
        assert engine["floor"]["memory_ms"] > 0
    table = (place / "out" / f"rehearsal-{version}.md").read_text(encoding="utf-8")
    assert table.strip() in done.stdout
    title, *lines = table.splitlines()
    assert title.startswith("# REHEARSAL")
    assert all(line.startswith("| REHEARSAL ") for line in lines if line.startswith("| ") and "÷" not in line)


def test_what_was_done_is_not_done_again_nor_mixed_with_another_machines(place: Path) -> None:
    assert suite(place, "8.5.3.1", "--precisions", "fp32").returncode == 0
    before = results(place)["engines"]
    again = suite(place)
    assert again.returncode == 0
    assert "u2netp-64-fp32: done before" in again.stderr
    after = results(place)["engines"]
    assert after["u2netp-64-fp32"] == before["u2netp-64-fp32"]
    assert "u2netp-64-fp16" in after
    path = place / "out" / "rehearsal-8.5.3.1.json"
    other = json.dumps(results(place) | {"tensorrt": "10.3.0"})
    path.write_text(other, encoding="utf-8")
    refused = suite(place)
    assert refused.returncode == 3
    assert "10.3.0" in refused.stderr
    assert path.read_text(encoding="utf-8") == other


def test_a_failure_is_kept_and_tried_again_and_stops_nothing(place: Path) -> None:
    refusing = json.dumps({"workspace_needed": 1 << 60})
    failed = suite(place, FAKE_MACHINE=refusing)
    assert failed.returncode == 1
    engines = results(place)["engines"]
    assert [engine["failed"].startswith("BuildError") for engine in engines.values()] == [True, True]
    assert failed.stdout.count("| failed: BuildError") == 2
    assert suite(place).returncode == 0
    assert all("failed" not in engine for engine in results(place)["engines"].values())


def test_it_stops_when_its_time_is_over(place: Path) -> None:
    slow = json.dumps({"build_step_s": 30.0})
    stopped = suite(place, "10.3.0", "--minutes", "0.1", FAKE_MACHINE=slow)
    assert stopped.returncode == 0, stopped.stderr
    assert "0.1 minutes are over" in stopped.stderr
    assert stopped.stdout.startswith("# REHEARSAL")
    assert "Traceback" not in stopped.stderr
    assert not list((place / "work").rglob("engine.plan"))


def test_without_a_gpu_it_says_so(place: Path) -> None:
    done = suite(place, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 4
    assert "Traceback" not in done.stderr
