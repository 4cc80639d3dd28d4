"""Measure how long it takes from the start of a process to its first mask, and what of it is importing edgesod.

    python benchmarks/first_mask.py --engine engines/u2netp-320-int8

Runs, in turn: three lines of Python up to the first mask of a 720p frame; the same where nothing was compiled before;
`edgesod run --image` from start to end; and `import edgesod` alone, within its process. Prints one JSON object with the medians
and their spread in seconds; ends with 1 where a built engine takes more than 1.5 s, or the import more than 0.15 s.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))  # for documents.py, which they share
from documents import at_least_one, run

from edgesod.errors import CheckFailed
from edgesod.manifest import read_manifest
from edgesod.processing.pictures import photograph
from edgesod.runtime.compiled import FILE_NAME

FIRST_MASK_S = 1.5
IMPORT_S = 0.15

THREE_LINES = """
import sys, cv2, edgesod
with edgesod.Runtime(sys.argv[1] + "/") as runtime:
    print(runtime(cv2.imread(sys.argv[2])).mask.mean(), flush=True)
"""
IMPORT = "import time; began = time.perf_counter(); import edgesod; print(time.perf_counter() - began, flush=True)"


def main() -> int:
    """Measure, print, and say by the exit code whether the bounds are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", type=Path, required=True, help="an engine folder")
    parser.add_argument("--runs", type=at_least_one, default=5)
    wanted = parser.parse_args()
    read_manifest(wanted.engine)  # a folder that is no engine is told here
    with tempfile.TemporaryDirectory(prefix="edgesod-first-") as temporary:
        folder = Path(temporary)
        engine, cold = folder / wanted.engine.name, folder / "cold" / wanted.engine.name
        shutil.copytree(wanted.engine, engine)
        shutil.copytree(wanted.engine, cold)
        picture = folder / "frame.png"
        cv2.imwrite(str(picture), cv2.resize(photograph(), (1280, 720)))
        measured: dict[str, Callable[[], float]] = {
            "python": lambda: _until_it_prints(sys.executable, "-c", THREE_LINES, engine, picture),
            "python_not_compiled": lambda: _not_compiled(cold, picture),
            "edgesod_run": lambda: _until_it_ends("run", "--engine", engine, "--image", picture, "--out", folder / "out.png"),
            "import": lambda: float(_output(sys.executable, "-c", IMPORT)),
        }
        for measure in measured.values():
            measure()  # files into memory, byte code beside the sources
        rounds = [{name: measure() for name, measure in measured.items()} for _ in range(wanted.runs)]
    seconds = {name: [one[name] for one in rounds] for name in measured}
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    passed = max(medians["python"], medians["edgesod_run"]) <= FIRST_MASK_S and medians["import"] <= IMPORT_S
    report = {
        "engine": wanted.engine.name,
        "runs": wanted.runs,
        "cores": len(os.sched_getaffinity(0)),
        "seconds": {
            name: {"median": round(medians[name], 3), "min": round(min(values), 3), "max": round(max(values), 3)}
            for name, values in seconds.items()
        },
        "bounds": {"first_mask": FIRST_MASK_S, "import": IMPORT_S},
        "passed": passed,
    }
    print(json.dumps(report, indent=1))
    return 0 if passed else 1


def _not_compiled(engine: Path, picture: Path) -> float:
    (engine / FILE_NAME).unlink(missing_ok=True)
    return _until_it_prints(sys.executable, "-c", THREE_LINES, engine, picture)


def _until_it_prints(*command: str | Path) -> float:
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        elapsed = time.perf_counter() - began
    if process.returncode or not line:
        raise CheckFailed(f"Python with {command[-2]} ended with {process.returncode}; what it said is above")
    return elapsed


def _until_it_ends(*arguments: str | Path) -> float:
    began = time.perf_counter()
    _output(sys.executable, "-m", "edgesod", *arguments)
    return time.perf_counter() - began


def _output(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CheckFailed(f"{' '.join(map(str, command))} ended with {done.returncode}: {done.stderr}")
    return done.stdout


if __name__ == "__main__":
    run(main)
