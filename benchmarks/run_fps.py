"""Measure how much of the bare engine's speed `edgesod run` keeps from end to end.

    python benchmarks/run_fps.py clip.mp4 --engine engines/u2netp-320-int8

Runs in turn, each in a process of its own: the engine alone (`edgesod bench`, network only), `edgesod run` without an output, and with
an H.264 file. Every stage shares the same cores, so what decoding, drawing and encoding take is missing from the engine. Prints
one JSON object with frames a second and the ratios to the engine of the same round; ends with 1 where a median is below its
bound.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))  # for documents.py, which they share
from documents import at_least_one, run

from edgesod.errors import CheckFailed

LEAST = {"run": 0.87, "run_h264": 0.78}


def main() -> int:
    """Measure, print, and say by the exit code whether the bounds are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--engine", type=Path, required=True, help="an engine folder")
    parser.add_argument("--rounds", type=at_least_one, default=3)
    parser.add_argument("--frames", type=at_least_one, default=100_000, help="of the clip, in each run; all by default")
    wanted = parser.parse_args()
    fps: dict[str, list[float]] = {"engine": [], **{name: [] for name in LEAST}}
    with tempfile.TemporaryDirectory(prefix="edgesod-run-fps-") as folder:
        run = ("run", "--video", wanted.clip, "--engine", wanted.engine, "--max-frames", wanted.frames)
        for _ in range(wanted.rounds):
            bench = _edgesod("bench", "--engine", wanted.engine, "--duration", 3, "--no-roofline")
            fps["engine"].append(1e3 / bench["latency_ms"]["p50"])
            fps["run"].append(_edgesod(*run)["fps"])
            fps["run_h264"].append(_edgesod(*run, "--out", Path(folder) / "out.mp4")["fps"])
    ratios = {name: [ours / bare for ours, bare in zip(fps[name], fps["engine"], strict=True)] for name in LEAST}
    medians = {name: statistics.median(values) for name, values in ratios.items()}
    print(json.dumps({"fps": fps, "ratios": ratios, "median_ratio": medians, "least": LEAST}, indent=2))
    return int(any(medians[name] < least for name, least in LEAST.items()))


def _edgesod(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "edgesod", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CheckFailed(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


if __name__ == "__main__":
    run(main)
