"""The comparison with peers writes what others read, and measures maps against torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_peers_report(tmp_path: Path) -> None:
    script, report = ROOT / "benchmarks" / "peers.py", tmp_path / "peers.json"
    command = [sys.executable, script, "--python", sys.executable, "--only", "onnxruntime", "--rounds", "2", "--json", report]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["rounds"] == 2
    (row,) = found["contenders"].values()
    assert row["ms"] > 0
    assert row["spread"] >= 0
    assert row["rss_mb"] > 50
    assert row["mae"] < 1e-5  # the same weights, in FP32 as well
    assert 0.001 < row["mae_official"] < 0.2  # another resize, and the authors' stretch
    assert row["ratio_to_onnxruntime"] == 1
    assert "| onnxruntime |" in done.stdout
