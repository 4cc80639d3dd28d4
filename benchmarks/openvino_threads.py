"""Measure how OpenVINO's threads are best set up: pinned to cores or not, work shared out evenly or as it comes.

    python benchmarks/openvino_threads.py --onnx engines/u2netp-320-int8/engine.onnx --document docs/performance.md

Each setting runs the network alone, and beside a thread that compresses 25 720p pictures a second, as a run with an output file
does. Interleaved rounds; prints one JSON object with the median, and the median ratio to OpenVINO's own choice, per setting, and
writes the same as a table.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino as ov

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))  # for documents.py, which they share
from documents import at_least_one, replace_between, run, say

from edgesod.manifest import this_device
from edgesod.processing.pictures import photograph
from edgesod.threads import resolve_threads
from edgesod.timing import ROUNDS, interleaved, round_ratios

PLACES = ("alone", "beside a sink")
SETTINGS: dict[str, dict[str, object]] = {
    "default": {},
    "pinned": {"ENABLE_CPU_PINNING": True},
    "unpinned": {"ENABLE_CPU_PINNING": False},
    "unpinned, as it comes": {"ENABLE_CPU_PINNING": False, "TBB_PARTITIONER": "AUTO"},
}
RUNS = 8
BEGIN, END = "<!-- threads: written by benchmarks/openvino_threads.py -->", "<!-- end of threads -->"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", type=Path, required=True, help="a network of fixed shape")
    parser.add_argument("--threads", type=at_least_one)
    parser.add_argument("--rounds", type=at_least_one, default=ROUNDS)
    parser.add_argument("--document", type=Path, help="document whose table is written anew")
    wanted = parser.parse_args()
    core = ov.Core()
    base = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": resolve_threads(wanted.threads),
    }
    requests = {}
    for name, settings in SETTINGS.items():
        requests[name] = core.compile_model(wanted.onnx, "CPU", base | settings).create_infer_request()
    port = next(iter(requests.values())).model_inputs[0]
    tensor = np.random.default_rng(0).normal(0, 1, tuple(port.shape)).astype(port.element_type.to_dtype())

    def ms(request: ov.InferRequest) -> tuple[float]:
        began = time.perf_counter()
        request.infer([tensor], share_inputs=True)
        return ((time.perf_counter() - began) * 1e3,)

    report: dict[str, Any] = {
        "cpu": this_device().name,
        "cores": len(os.sched_getaffinity(0)),
        "threads": base["INFERENCE_NUM_THREADS"],
        "rounds": wanted.rounds,
    }
    for place in PLACES:
        say(f"timing, {place}")
        stop = threading.Event()
        sink = threading.Thread(target=_compress, args=(stop,), daemon=True)
        if place != "alone":
            sink.start()
        runs = [partial(ms, request) for request in requests.values()]
        found = interleaved(
            runs,
            wanted.rounds,
            runs_a_round=RUNS,
            of=statistics.fmean,
            on_round=lambda done: say(f"round {done} of {wanted.rounds}"),
        )
        stop.set()
        times = {name: [one for (one,) in own] for name, own in zip(requests, found, strict=True)}
        report[place] = {
            name: {
                "ms": round(statistics.median(own), 2),
                "ratio": round(statistics.median(round_ratios(times["default"], own)), 3),
            }
            for name, own in times.items()
        }
        if place != "alone":
            sink.join()
    print(json.dumps(report, indent=1))
    if wanted.document:
        replace_between(wanted.document, BEGIN, END, as_table(report))


def as_table(report: dict[str, Any]) -> list[str]:
    """Return the report as lines of Markdown."""
    lines = [
        f"{report['cpu']}, cores: {report['cores']}, threads: {report['threads']}, {report['rounds']} rounds.",
        "",
        "| threads of OpenVINO | alone, ms | × default | beside a sink, ms | × default |",
        "|---|---|---|---|---|",
    ]
    for name in SETTINGS:
        cells = [f"{report[place][name]['ms']:.1f} | {report[place][name]['ratio']:.2f}" for place in PLACES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _compress(stop: threading.Event) -> None:
    picture = cv2.resize(photograph(), (1280, 720))
    while not stop.is_set():
        began = time.perf_counter()
        cv2.imencode(".jpg", picture)
        time.sleep(max(0.0, 1 / 25 - (time.perf_counter() - began)))


if __name__ == "__main__":
    run(main)
