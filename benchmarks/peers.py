"""Measure edgesod beside what people use today: same machine, same weights, same 720p frames, from frame to map at frame size.

    python benchmarks/peers.py --install            # once: rembg, torch and the like, into an environment of their own
    python benchmarks/peers.py --json peers.json

Contenders are rembg (its U²-Net session, mask only), ONNX Runtime and OpenCV's DNN module with the shortest OpenCV pre- and
postprocessing, torch as the authors' test script runs it, and edgesod's FP32 and INT8 engines, which are built first. Each is
a process of its own that chooses its threads itself. In every round each runs all frames once, the order turning with the
rounds; `ms` is the median over rounds of a round's mean time of a frame, `spread` the distance between the quartiles over it,
a ratio the median over rounds of the ratio within a round. `rss_mb` is the peak of resident memory (MB of 10⁶ bytes), `mae`
the mean absolute difference to torch's FP32 map of the very tensor that the contender made of the frame, `mae_official` that of
the final map to the one of the authors' script.
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
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import platformdirs

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))  # for documents.py, which they share
from documents import at_least_one, run, say

from edgesod import build, zoo
from edgesod.bench.environment import environment
from edgesod.errors import CheckFailed, InputError
from edgesod.files import write_atomically
from edgesod.manifest import read_manifest, this_device
from edgesod.processing.pictures import PHOTOGRAPHS, photograph
from edgesod.recipe import Precision, recipe_for
from edgesod.timing import quartile_spread, round_ratios

ROOT = Path(__file__).parents[1]
SIZE_WH = (1280, 720)
OURS: dict[str, Precision] = {"edgesod-fp32": "fp32", "edgesod-int8": "int8"}
PEERS = ("rembg", "onnxruntime", "torch", "opencv-dnn")
COOL_S = 0.3
"""Threads of the last contender may spin for a fifth of a second before they sleep."""


def main() -> None:
    """Install, or measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true", help="make the peers' environment, measure nothing")
    parser.add_argument("--python", type=Path, help="the peers' Python, where it is not the one that --install made")
    parser.add_argument(
        "--engines", type=Path, metavar="DIR", help="where our engines are built already; built anew without it"
    )
    parser.add_argument("--rounds", type=at_least_one, default=9)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to a file")
    parser.add_argument("--only", nargs="+", choices=(*PEERS, *OURS), help="leave the others out")
    wanted = parser.parse_args()
    home = Path(platformdirs.user_cache_dir("edgesod")) / "peers"
    if wanted.install:
        install(home)
        return
    python = wanted.python or home / "bin" / "python"
    if not python.exists():
        raise InputError(f"there is no {python}", hint="python benchmarks/peers.py --install")
    report = measure(python, wanted.rounds, wanted.only or (*PEERS, *OURS), wanted.engines)
    if wanted.json:
        write_atomically(wanted.json, (json.dumps(report, indent=1) + "\n").encode())
    print(as_table(report))


def install(home: Path) -> None:
    """Make an environment for the peers, so that they and what they pull in stay out of this one."""
    _run(sys.executable, "-m", "venv", home)
    requirements = Path(__file__).with_name("requirements-peers.txt")
    _run(home / "bin" / "pip", "install", "-q", "-r", requirements)


def _run(*command: str | Path) -> None:
    if ended := subprocess.run(command, check=False).returncode:
        raise CheckFailed(f"{' '.join(map(str, command))} ended with {ended}; what it said is above")


def measure(python: Path, rounds: int, names: Sequence[str], engines: Path | None) -> dict[str, Any]:
    """Return what every contender took and how far its maps are off."""
    model = zoo.shipped("u2netp")
    with tempfile.TemporaryDirectory(prefix="edgesod-peers-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        shutil.copy(model.onnx, folder / "u2netp.onnx")  # rembg takes models from its own folder alone
        frames = np.stack([cv2.resize(photograph(name), SIZE_WH, interpolation=cv2.INTER_AREA) for name in PHOTOGRAPHS])
        np.save(folder / "frames.npy", frames)
        where: dict[str, Path] = dict.fromkeys(PEERS, folder / "u2netp.onnx") | {"torch": model.weights}
        for name, precision in OURS.items():
            recipe = recipe_for("u2netp", precision)
            where[name] = (engines or folder).resolve() / recipe.name
            if name in names and engines is not None and not read_manifest(where[name]).is_from(recipe, model.onnx):
                raise InputError(
                    f"{where[name]} was built from other weights, another recipe or by an older edgesod",
                    hint="leave --engines out",
                )
            if name in names and engines is None:
                say(f"building {recipe.name}")
                build(recipe, model.onnx, root=folder)
        running = {
            name: stack.enter_context(Process(name, sys.executable if name in OURS else python, folder, where[name]))
            for name in dict.fromkeys((*names, "torch"))  # torch is the measure of the others' maps
        }
        times: dict[str, list[float]] = {name: [] for name in names}
        for number in range(rounds):
            turn = number % len(names)
            for name in (*names[turn:], *names[:turn]):
                time.sleep(COOL_S)
                times[name].append(statistics.fmean(running[name].ask(do="time")))
            say(f"round {number + 1} of {rounds}")
        memory = {name: running[name].ask(do="memory") for name in names}
        distances = _distances(running, folder)
        contenders: dict[str, Any] = {
            name: {
                "ms": round(statistics.median(times[name]), 2),
                "spread": round(quartile_spread(times[name]), 4),
                "rss_mb": round(memory[name], 1),
                **distances[name],
                **{
                    f"ratio_to_{other}": round(statistics.median(round_ratios(times[other], times[name])), 3)
                    for other in ("rembg", "onnxruntime")
                    if other in names
                },
                "version": running[name].version,
            }
            for name in names
        }
    return {
        "rounds": rounds,
        "frame": list(reversed(SIZE_WH)),
        "frames": len(frames),
        "cores": len(os.sched_getaffinity(0)),
        "contenders": contenders,
        "environment": environment(this_device()),
    }


class Process:
    """A contender in a process of its own."""

    def __init__(self, name: str, python: str | Path, folder: Path, model: Path) -> None:
        self._name = name
        outside = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        own = {"PYTHONPATH": str(ROOT), "REMBG_HOME": str(folder), "U2NET_HOME": str(folder)}
        self._process = subprocess.Popen(
            [python, Path(__file__).with_name("_contender.py"), name, "--frames", folder / "frames.npy", "--model", model],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=outside | own,
        )
        self.version: str = self._answer()["version"]

    def ask(self, **job: str) -> Any:
        """Have it do something and return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise CheckFailed(f"{self._name} ended with {self._process.wait()}; what it said is above")
        return json.loads(line)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.communicate()  # its stdin ends, and so does it


def as_table(report: dict[str, Any]) -> str:
    """Return the report as a Markdown table."""
    columns = ("ms", "spread", "ratio_to_rembg", "ratio_to_onnxruntime", "rss_mb", "mae", "mae_official")
    lines = ["| contender | " + " | ".join(columns) + " | version |", "|" + "---|" * (len(columns) + 2)]
    for name, row in report["contenders"].items():
        lines.append(f"| {name} | " + " | ".join(str(row.get(column, "–")) for column in columns) + f" | {row['version']} |")
    return "\n".join(lines)


def _distances(running: dict[str, Process], folder: Path) -> dict[str, dict[str, float]]:
    """Return per contender how far its maps are from torch's of the same tensors, and from the authors' final ones."""
    for name, process in running.items():
        process.ask(do="maps", file=str(folder / f"{name}.npz"))
    official = np.load(folder / "torch.npz")["maps"]
    found = {}
    for name in running:
        running["torch"].ask(do="reference", file=str(folder / f"{name}.npz"), to=str(folder / "reference.npy"))
        made, reference = np.load(folder / f"{name}.npz"), np.load(folder / "reference.npy")
        found[name] = {
            "mae": round(float(np.abs(made["saliency"] - reference).mean()), 6),
            "mae_official": round(float(np.abs(made["maps"].astype(np.float32) - official).mean()) / 255, 6),
        }
    return found


if __name__ == "__main__":
    run(main)
