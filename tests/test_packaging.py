"""The wheel carries what an installed user needs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_wheel_carries_models_recipes_and_tables(tmp_path: Path) -> None:
    # from a copy: setuptools leaves build folders beside what it packs
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "edgesod/_recipes/u2netp-320-int8.toml",
        "edgesod/_calib/u2netp-320.json",
        "edgesod/models/u2netp/u2netp.onnx",
        "edgesod/models/u2netp/u2netp.safetensors",
        "edgesod/models/u2netp/card.json",
        "edgesod/_recipes/u2netp-fast-320-int8.toml",
        "edgesod/_calib/u2netp-fast-320.json",
        "edgesod/models/u2netp-fast/u2netp-fast.onnx",
        "edgesod/models/u2netp-fast/u2netp-fast.safetensors",
        "edgesod/models/u2netp-fast/card.json",
        "edgesod/web/static/index.html",
        "edgesod/web/static/page.js",
        "edgesod/py.typed",
        "edgesod/bench/page.css",
        "trainer/recipes/fast.toml",
    } <= names
    assert not {name.split("/")[0] for name in names} - {"edgesod", "trainer", wheel.name.split("-")[0] + "-0.1.0.dist-info"}
