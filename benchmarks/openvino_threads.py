"""Measure how OpenVINO's threads are best set up: pinned to cores or not, work shared out evenly or as it comes.

    python benchmarks/openvino_threads.py --onnx engines/u2netp-320-int8/engine.onnx

Each setting runs the network alone, and beside a thread that compresses 25 720p pictures a second, as a run with an output file
does. Interleaved rounds; prints one JSON object with the median, and the median ratio to OpenVINO's own choice, per setting.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import openvino as ov

from edgesod.processing.pictures import photograph
from edgesod.runtime.threads import resolve_threads
from edgesod.timing import ROUNDS, interleaved, round_ratios

SETTINGS: dict[str, dict[str, object]] = {
    "default": {},
    "pinned": {"ENABLE_CPU_PINNING": True},
    "unpinned": {"ENABLE_CPU_PINNING": False},
    "unpinned, as it comes": {"ENABLE_CPU_PINNING": False, "TBB_PARTITIONER": "AUTO"},
}
RUNS = 8


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", type=Path, required=True, help="a network of fixed shape")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
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

    report: dict[str, object] = {"cores": len(os.sched_getaffinity(0)), "rounds": wanted.rounds}
    for place in ("alone", "beside a sink"):
        stop = threading.Event()
        sink = threading.Thread(target=_compress, args=(stop,))
        if place != "alone":
            sink.start()
        runs = [partial(ms, request) for request in requests.values()]
        found = interleaved(runs, wanted.rounds, runs_a_round=RUNS, of=statistics.fmean)
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


def _compress(stop: threading.Event) -> None:
    picture = cv2.resize(photograph(), (1280, 720))
    while not stop.is_set():
        began = time.perf_counter()
        cv2.imencode(".jpg", picture)
        time.sleep(max(0.0, 1 / 25 - (time.perf_counter() - began)))


if __name__ == "__main__":
    main()
