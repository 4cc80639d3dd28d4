"""Measure what happens to pixels around the network, in nanoseconds per pixel of the frame, beside a plain copy of the frame.

    python benchmarks/processing.py --size 1280x720 --json processing.json

All steps run in one thread, one after the other in every round, so that each finds the caches as its neighbours left them, as in a
run. Counted is the thread's CPU time, which another program on the machine does not lengthen; medians over the rounds. The
frame is a photograph, the map a disc over a third of it: what effects cost depends on how much of the frame the subject takes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))  # for documents.py, which they share
from documents import at_least_one, run

from edgesod.files import write_atomically
from edgesod.manifest import this_device
from edgesod.processing.effects import EFFECTS, apply_effect
from edgesod.processing.pictures import photograph
from edgesod.processing.postprocess import postprocess
from edgesod.processing.preprocess import preprocess
from edgesod.recipe import load_recipe
from edgesod.types import Result


def main() -> None:
    """Measure, print the table, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=size, default="1280x720", help="WIDTHxHEIGHT of the frame")
    parser.add_argument("--rounds", type=at_least_one, default=60)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    width, height = options.size
    cv2.setNumThreads(1)
    done = measure((height, width), options.rounds)
    print(f"{width}×{height}, one thread of {done['cpu']}, median of {options.rounds} rounds\n")
    print(f"{'':12}{'ms':>8}{'ns/pixel':>10}{'copies of the frame':>21}")
    for name, row in done["steps"].items():
        print(f"{name:12}{row['ms']:8.3f}{row['ns_per_pixel']:10.2f}{row['copies']:21.1f}")
    if options.json:
        write_atomically(options.json, json.dumps(done, indent=1).encode())


def size(text: str) -> tuple[int, int]:
    """Read ``--size``: width and height."""
    width, height = (int(side) for side in text.split("x"))
    return width, height


def measure(size_hw: tuple[int, int], rounds: int) -> dict[str, Any]:
    """Return, for each step, ``ms``, ``ns_per_pixel`` and ``copies``: its time in those of a copy of the frame."""
    steps = steps_on(size_hw)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for k in range(rounds + 5):
        for name, step in steps.items():
            began_s = time.thread_time()
            step()
            if k >= 5:  # the first rounds allocate
                times[name].append(time.thread_time() - began_s)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    pixels = size_hw[0] * size_hw[1]
    rows = {
        name: {"ms": s * 1e3, "ns_per_pixel": s / pixels * 1e9, "copies": s / medians["memcpy"]} for name, s in medians.items()
    }
    return {"size_hw": size_hw, "rounds": rounds, "cpu": this_device().name, "steps": rows}


def steps_on(size_hw: tuple[int, int]) -> dict[str, Callable[[], object]]:
    """Return what is measured, by name."""
    height, width = size_hw
    image = np.asarray(cv2.resize(photograph(), (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
    behind = np.ascontiguousarray(image[:, ::-1])
    recipe = load_recipe("u2netp-320-int8")
    h, w = recipe.size_hw
    y, x = np.mgrid[:h, :w]
    radius = np.sqrt(h * w / (3 * np.pi))
    saliency = np.clip((radius - np.hypot(y - h / 2, x - w / 2)) / 6 + 0.5, 0, 1).astype(np.float32)
    tensor, copy = np.empty((1, 3, h, w), np.float32), np.empty_like(image)

    def draw(name: str) -> Callable[[], object]:
        background = (behind,) if name == "replace" else ()
        return lambda: apply_effect(name, image, Result(saliency, size_hw), *background)

    return {
        "memcpy": lambda: np.copyto(copy, image),
        "preprocess": lambda: preprocess(image, recipe, tensor),
        "postprocess": lambda: postprocess(saliency[None, None], recipe, size_hw),
        "mask": lambda: Result(saliency, size_hw).mask,
        **{name: draw(name) for name in EFFECTS},
    }


if __name__ == "__main__":
    run(main)
