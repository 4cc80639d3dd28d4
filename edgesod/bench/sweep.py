"""Throughput against latency: threads make one frame faster, several engines side by side make more frames a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgesod.runtime import Runtime
from edgesod.timing import LatencySummary

BATCH_NOTE = (
    "batch 1: edgesod runs every engine on one image at a time, also one built with --batch, so streams, engines side by side, "
    "are what trades latency for throughput"
)


@dataclass(frozen=True)
class SweepPoint:
    """What one setting reaches.

    Attributes:
        streams: Engines side by side, each with a frame of its own.
        threads: CPU threads of each.
        fps: Frames a second of all streams together, end to end.
        latency: Of one frame, end to end.
    """

    streams: int
    threads: int
    fps: float
    latency: LatencySummary

    def as_dict(self) -> dict[str, object]:
        """Return the point as one JSON-ready object."""
        return {"streams": self.streams, "threads": self.threads, "fps": self.fps, "latency_ms": self.latency.as_dict()}


def settings(cores: int) -> list[tuple[int, int]]:
    """Return the ``(streams, threads)`` worth trying on so many cores: one stream on 1, 2, 4, … cores, then all cores shared out."""
    counts = [1 << k for k in range(cores.bit_length()) if 1 << k < cores] + [cores]
    shared = [(cores // threads, threads) for threads in reversed(counts)]
    return list(dict.fromkeys([(1, threads) for threads in counts] + shared))


def sweep(
    open_runtime: Callable[[int], Runtime],
    frame: NDArray[np.uint8],
    points: Iterable[tuple[int, int]],
    *,
    seconds: float = 2.0,
    warm_up_s: float = 0.2,
    on_point: Callable[[SweepPoint], None] = lambda _point: None,
) -> list[SweepPoint]:
    """Measure each of ``(streams, threads)``.

    Args:
        open_runtime: Opens an engine with so many threads; whatever it opens is closed here.
        frame: uint8 BGR ``(H, W, 3)``.
        points: What to measure.
        seconds: Least time of each, in which each stream computes a frame at least.
        warm_up_s: Before each.
        on_point: Told each as it is there.
    """
    found = []
    for streams, threads in points:
        point = _measure(open_runtime, frame, streams, threads, seconds, warm_up_s)
        found.append(point)
        on_point(point)
    return found


def _measure(
    open_runtime: Callable[[int], Runtime],
    frame: NDArray[np.uint8],
    streams: int,
    threads: int,
    seconds: float,
    warm_up_s: float,
) -> SweepPoint:
    runtimes: list[Runtime] = []
    workers: list[threading.Thread] = []
    times_ms: list[list[float]] = [[] for _ in range(streams)]
    errors: list[BaseException] = []
    ready, stop = threading.Barrier(streams), threading.Event()
    rates: list[float] = []

    def run(runtime: Runtime, own_ms: list[float]) -> None:
        try:
            end = time.perf_counter() + warm_up_s
            while time.perf_counter() < end and not stop.is_set():
                _ = runtime(frame).mask
            ready.wait()
            start = now = time.perf_counter()
            while not own_ms or (now - start < seconds and not stop.is_set()):
                began = now
                _ = runtime(frame).mask
                now = time.perf_counter()
                own_ms.append((now - began) * 1e3)
            rates.append(len(own_ms) / (now - start))
        except BaseException as error:  # it is the caller's to handle; the others must not wait for this one
            errors.append(error)
            ready.abort()

    try:
        for _ in range(streams):
            runtimes.append(open_runtime(threads))
        for k, pair in enumerate(zip(runtimes, times_ms, strict=True)):
            workers.append(threading.Thread(target=run, args=pair, name=f"edgesod-stream-{k}"))
            workers[-1].start()
        for worker in workers:
            worker.join()
    finally:
        stop.set()  # where Ctrl-C ended the wait: no engine is closed under a frame
        ready.abort()
        for worker in workers:
            if worker.is_alive():
                worker.join()
        for runtime in runtimes:
            runtime.close()
    if errors:
        raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
    latencies = [value for own in times_ms for value in own]
    # each stream's own rate, added up: they end a frame apart, and none is idle within its time
    return SweepPoint(streams, threads, round(sum(rates), 3), LatencySummary.from_ms(latencies))
