"""Run the command line as a person would, and one built engine for all tests that need one."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

ROOT = Path(__file__).parents[2]


def edgesod(*words: str, cwd: Path, timeout: float = 300, **env: str) -> subprocess.CompletedProcess[str]:
    """Run ``edgesod`` with ``words`` in ``cwd``."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"} | env
    environment.pop("EDGESOD_ENGINES", None)
    return subprocess.run(
        [sys.executable, "-m", "edgesod", *words],
        cwd=cwd,
        env=environment | env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@cache
def built_engine(precision: str) -> Path:
    """Return the shipped model's engine folder at a precision, built once a test run."""
    import shutil
    from atexit import register

    root = Path(mkdtemp(prefix="edgesod-tests-"))
    register(shutil.rmtree, root, ignore_errors=True)
    done = edgesod("build", "--model", "u2netp", f"--{precision}", "--out", str(root), cwd=root)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip().splitlines()[-1])


@pytest.fixture
def engine_int8() -> Path:
    """The shipped model as an INT8 engine."""
    return built_engine("int8")
