"""Latency of an engine by trtexec's rules: 200 ms of warm-up, at least 10 iterations and at least 3 s."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgesod.manifest import Device, this_device, versions_here
from edgesod.runtime import Runtime
from edgesod.timing import UNSTABLE_CV, LatencySummary, paper_ratios

WARM_UP_MS = 200.0
MIN_ITERATIONS = 10
MIN_DURATION_S = 3.0


@dataclass(frozen=True)
class BenchReport:
    """What was measured.

    Attributes:
        latency: Network time alone (``inference``): what the papers' figures mean.
        stages: Latency by stage, ``end_to_end`` being frame in memory to mask at frame size.
        throughput_fps: Frames a second end to end, one at a time.
        frame_hw: Height and width of the frame used.
        warnings: Why the numbers should be read with care.
    """

    latency: LatencySummary
    stages: dict[str, LatencySummary]
    throughput_fps: float
    frame_hw: tuple[int, int]
    warnings: tuple[str, ...]

    def as_dict(self, runtime: Runtime) -> dict[str, object]:
        """Return everything as one JSON-ready object."""
        device = this_device()
        return {
            "model": runtime.recipe.model,
            "precision": runtime.precision,
            "backend": runtime.backend,
            "size": list(runtime.recipe.size_hw),
            "frame": list(self.frame_hw),
            "throughput_fps": self.throughput_fps,
            "latency_ms": self.latency.as_dict(),
            "stages_ms": {name: summary.as_dict() for name, summary in self.stages.items()},
            "paper": paper_ratios(1e3 / self.latency.p50),
            "warnings": list(self.warnings),
            "environment": environment(device),
        }


def bench(
    runtime: Runtime,
    frame: NDArray[np.uint8],
    *,
    warm_up_ms: float = WARM_UP_MS,
    iterations: int = MIN_ITERATIONS,
    duration_s: float = MIN_DURATION_S,
) -> BenchReport:
    """Run a frame, uint8 BGR ``(H, W, 3)``, through ``runtime`` again and again and time each stage."""
    end = time.perf_counter() + warm_up_ms / 1e3
    while True:
        _ = runtime(frame).mask
        if time.perf_counter() >= end:
            break
    samples: dict[str, list[float]] = {}
    start = time.perf_counter()
    done = 0
    while done < iterations or time.perf_counter() - start < duration_s:
        began = time.perf_counter()
        result = runtime(frame)
        called = time.perf_counter()
        _ = result.mask
        ended = time.perf_counter()
        times = result.times_ms | {"mask": (ended - called) * 1e3, "end_to_end": (ended - began) * 1e3}
        for name, value in times.items():
            samples.setdefault(name, []).append(value)
        done += 1
    stages = {name: LatencySummary.from_ms(values) for name, values in samples.items()}
    latency = stages["inference"]
    warnings = []
    if latency.cv > UNSTABLE_CV:
        warnings.append(
            f"inference time varies by {latency.cv:.1%} (over {UNSTABLE_CV:.1%}): something else runs here, or clocks are not fixed"
        )
    return BenchReport(
        latency, stages, round(1e3 / stages["end_to_end"].mean, 3), (frame.shape[0], frame.shape[1]), tuple(warnings)
    )


def environment(device: Device) -> dict[str, object]:
    """Return what a number was measured on."""
    return {
        "cpu": device.name,
        "architecture": device.architecture,
        "int8_dot_product": device.int8_dot_product,
        "versions": versions_here("edgesod", "onnxruntime", "openvino", "numpy", "opencv-python"),
    }
