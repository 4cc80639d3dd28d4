"""Latency of an engine by trtexec's rules: 200 ms of warm-up, at least 10 iterations and at least 3 s."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesod.bench.environment import environment, resident_mb
from edgesod.bench.sensor_log import SensorLog
from edgesod.manifest import this_device
from edgesod.processing.pictures import photograph, read_picture
from edgesod.processing.resize import resize_image
from edgesod.runtime import Runtime
from edgesod.timing import UNSTABLE_CV, LatencySummary, paper_ratios

WARM_UP_MS = 200.0
MIN_ITERATIONS = 10
MIN_DURATION_S = 3.0
FRAME_HW = (720, 1280)


@dataclass(frozen=True)
class BenchReport:
    """What was measured.

    Attributes:
        latency: Network time alone (``inference``): what the papers' figures mean.
        stages: Latency by stage, ``end_to_end`` being frame in memory to mask at frame size.
        throughput_fps: Frames a second end to end, one at a time.
        frame_hw: Height and width of the frame used.
        warnings: Why the numbers should be read with care.
        samples_ms: Every iteration's milliseconds by stage, in the order they came.
        at_s: When each iteration ended, in seconds from the first one's beginning.
        sensors: Temperatures, power and energy a frame (:meth:`~edgesod.bench.sensor_log.SensorLog.report`).
        rss_mb: Resident memory of the process at the end, in 10⁶ bytes; ``None`` where the system does not tell it.
    """

    latency: LatencySummary
    stages: dict[str, LatencySummary]
    throughput_fps: float
    frame_hw: tuple[int, int]
    warnings: tuple[str, ...]
    samples_ms: dict[str, list[float]] = field(default_factory=dict)
    at_s: list[float] = field(default_factory=list)
    sensors: dict[str, Any] = field(default_factory=dict)
    rss_mb: float | None = None

    def as_dict(self, runtime: Runtime) -> dict[str, Any]:
        """Return everything but the single samples as one JSON-ready object."""
        return {
            "model": runtime.recipe.model,
            "precision": runtime.precision,
            "backend": runtime.backend,
            "threads": runtime.threads,
            "size": list(runtime.recipe.size_hw),
            "frame": list(self.frame_hw),
            "throughput_fps": self.throughput_fps,
            "latency_ms": self.latency.as_dict(),
            "stages_ms": {name: summary.as_dict() for name, summary in self.stages.items()},
            "paper": paper_ratios(1e3 / self.latency.p50),
            "rss_mb": self.rss_mb,
            "sensors": self.sensors,
            "warnings": list(self.warnings),
            "environment": environment(this_device(), runtime.facts),
        }


def bench_frame(path: Path | None = None, size_hw: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Return the frame to measure with, uint8 BGR ``(H, W, 3)``: a picture file, or a photograph of 1280×720 or another size.

    Raises:
        InputError: The file cannot be read.
    """
    return read_picture(path) if path is not None else resize_image(photograph(), size_hw or FRAME_HW, "linear")


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
    at_s: list[float] = []
    with SensorLog() as log:
        start = time.perf_counter()
        while len(at_s) < iterations or time.perf_counter() - start < duration_s:
            began = time.perf_counter()
            result = runtime(frame)
            called = time.perf_counter()
            _ = result.mask
            ended = time.perf_counter()
            times = result.times_ms | {"mask": (ended - called) * 1e3, "end_to_end": (ended - began) * 1e3}
            for name, value in times.items():
                samples.setdefault(name, []).append(value)
            at_s.append(ended - start)
    stages = {name: LatencySummary.from_ms(values) for name, values in samples.items()}
    latency = stages["inference"]
    warnings = []
    if latency.cv > UNSTABLE_CV:
        warnings.append(
            f"inference time varies by {latency.cv:.1%} (over {UNSTABLE_CV:.1%}): something else runs here, or clocks are not fixed"
        )
    return BenchReport(
        latency=latency,
        stages=stages,
        throughput_fps=round(1e3 / stages["end_to_end"].mean, 3),
        frame_hw=(frame.shape[0], frame.shape[1]),
        warnings=tuple(warnings),
        samples_ms=samples,
        at_s=at_s,
        sensors=log.report(len(at_s)),
        rss_mb=resident_mb(),
    )
