"""Measure what running capture, inference and sinks side by side gains, and whether anything keeps it from the possible.

    python benchmarks/pipeline.py clip_1280x720.mp4 --engine engines/u2netp-320-int8     # against each stage alone, and one after another
    python benchmarks/pipeline.py clip_1280x720.mp4 --sleep-ms 3                         # an engine that computes elsewhere, as on a GPU
    python benchmarks/pipeline.py --live --seconds 60                                    # 60 frames a second into 10: ages and drops

The first two run every arrangement once a round, in turning order, each from the clip to an H.264 file: ``capture``, ``inference``
and ``sink`` (render, encode) alone on what was prepared, all ``in sequence`` in one thread, and the ``pipelined`` run. Prints one JSON
object; ends with 1 where a bound of ``docs/live.md`` is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))  # for documents.py, which they share
from documents import at_least_one, run, say

from edgesod import Frame, MemorySession, Result, Runtime, open_sink, open_source
from edgesod.errors import InputError
from edgesod.processing.effects import apply_effect
from edgesod.recipe import recipe_for
from edgesod.runtime.session import Arrays
from edgesod.stream import CallbackSink, Source, run_pipeline
from edgesod.types import TensorSpec

OF_SLOWEST_STAGE = 0.95
OF_SEQUENCE = 0.98
OF_SEQUENCE_ELSEWHERE = 1.6


def main() -> int:
    """Measure, print, and say by the exit code whether the bounds are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", type=Path)
    engine = parser.add_mutually_exclusive_group()
    engine.add_argument("--engine", type=Path, help="an engine folder, run on one thread")
    engine.add_argument("--sleep-ms", type=float, help="no engine: sleep so long and return the same map")
    parser.add_argument("--frames", type=at_least_one, default=240, help="of the clip, for each arrangement and round")
    parser.add_argument("--rounds", type=at_least_one, default=9)
    parser.add_argument("--live", action="store_true", help="measure frame age with a source faster than the engine")
    parser.add_argument("--seconds", type=float, default=60.0)
    wanted = parser.parse_args()
    cv2.setNumThreads(1)  # as `edgesod run` does: a stage is a thread
    if wanted.live:
        report = ages(wanted.seconds)
    elif wanted.clip and (wanted.engine or wanted.sleep_ms is not None):
        report = throughput(wanted.clip, wanted.engine, wanted.sleep_ms, wanted.frames, wanted.rounds)
    else:
        parser.error("give a clip with --engine or --sleep-ms, or --live")
    print(json.dumps(report, indent=1))
    return 0 if report["passed"] else 1


def throughput(clip: Path, engine: Path | None, sleep_ms: float | None, num: int, rounds: int) -> dict[str, Any]:
    """Return frames a second of every arrangement: the median over rounds, the spread, and the ratios that matter."""
    with tempfile.TemporaryDirectory() as folder, _runtime(engine, sleep_ms) as runtime:
        arrangements = _arrangements(clip, runtime, Path(folder) / "out.mp4", num)
        names = list(arrangements)
        fps: dict[str, list[float]] = {name: [] for name in names}
        for number in range(rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                begun_s = time.perf_counter()
                arrangements[name]()
                fps[name].append(num / (time.perf_counter() - begun_s))
            shown = ", ".join(f"{name} {fps[name][-1]:.1f}" for name in names)
            say(f"round {number + 1} of {rounds}, frames a second: {shown}")
    slowest = [min(fps[name][k] for name in ("capture", "inference", "sink")) for k in range(rounds)]
    ratios = {
        "of_slowest_stage": [p / s for p, s in zip(fps["pipelined"], slowest, strict=True)],
        "of_sequence": [p / s for p, s in zip(fps["pipelined"], fps["sequence"], strict=True)],
    }
    medians = {name: statistics.median(values) for name, values in ratios.items()}
    if engine is not None:
        passed = medians["of_slowest_stage"] >= OF_SLOWEST_STAGE and medians["of_sequence"] >= OF_SEQUENCE
    else:
        passed = medians["of_sequence"] >= OF_SEQUENCE_ELSEWHERE
    return {
        "clip": clip.name,
        "engine": engine.name if engine else f"sleeps {sleep_ms:g} ms",
        "frames": num,
        "rounds": rounds,
        "fps": {name: _summary(values) for name, values in fps.items()},
        "ratios": {name: _summary(values) for name, values in ratios.items()},
        "passed": passed,
    }


def ages(seconds: float, *, source_fps: float = 60.0, engine_fps: float = 10.0) -> dict[str, Any]:
    """Run a source into an engine six times slower; return the ages at the sinks and whether every frame is accounted for."""
    taken: list[int] = []
    num = round(seconds * source_fps)
    with _runtime(None, 1e3 / engine_fps) as runtime:
        report = run_pipeline(
            _Camera(num, source_fps), lambda f: runtime(f.image), None, [CallbackSink(lambda f, _: taken.append(f.index))]
        )
    oldest_ms, inference_ms = report.frame_age_ms["done"].max, report.stages_ms["inference"].p50
    accounted = report.frames + report.dropped + report.late
    return {
        "seconds": seconds,
        "captured": num,
        "frames": report.frames,
        "dropped": report.dropped,
        "late": report.late,
        "missing_at_the_sink": num - len(taken),
        "inference_ms": inference_ms,
        "oldest_at_the_sink_ms": oldest_ms,
        "age_ms": {name: age.as_dict() for name, age in report.frame_age_ms.items()},
        "passed": oldest_ms < 2 * inference_ms and accounted == num and num - len(taken) == report.dropped + report.late,
    }


def _arrangements(clip: Path, runtime: Runtime, out: Path, num: int) -> dict[str, Callable[[], object]]:
    with open_source(clip) as source:
        frames = list(islice(source, num))
    if len(frames) < num:
        raise InputError(f"{clip} holds {len(frames)} frames, {num} are wanted", hint=f"--frames {len(frames)}")
    results = [runtime(frame.image) for frame in frames]

    def render(frame: Frame, result: Result) -> NDArray[np.uint8]:
        return apply_effect("overlay", frame.image, result)

    def infer(frame: Frame) -> Result:
        return runtime(frame.image)

    def fresh(result: Result) -> Result:
        return Result(result.map_hw, result.size_hw, result.threshold)  # its maps at frame size are computed when rendered

    def capture() -> None:
        with open_source(clip) as source:
            for _ in islice(source, num):
                pass

    def inference() -> None:
        for frame in frames:
            infer(frame)

    def sink() -> None:
        with open_sink(out, fps=25) as opened:
            for frame, result in zip(frames, results, strict=True):
                opened.write(render(frame, fresh(result)), frame)

    def sequence() -> None:
        with open_source(clip) as source, open_sink(out, fps=25) as opened:
            for frame in islice(source, num):
                opened.write(render(frame, infer(frame)), frame)

    def pipelined() -> None:
        run_pipeline(open_source(clip), infer, render, [open_sink(out, fps=25)], max_frames=num)

    return {"capture": capture, "inference": inference, "sink": sink, "sequence": sequence, "pipelined": pipelined}


def _runtime(engine: Path | None, sleep_ms: float | None) -> Runtime:
    if engine is None:
        return make_runtime(sleep_ms or 0.0)
    runtime = Runtime(engine, threads=1)
    runtime.warm_up()
    return runtime


def make_runtime(sleep_ms: float) -> Runtime:
    """Return U²-NetP's runtime with a network that sleeps, as one does that computes on a GPU, and always sees the same disc."""
    recipe = recipe_for("u2netp", "int8")
    height, width = recipe.size_hw
    y, x = np.mgrid[0:height, 0:width]
    disc = ((x - width / 2) ** 2 + (y - height / 2) ** 2 < (height / 4) ** 2).astype(np.float32)[None, None]

    def answer(_: Arrays) -> Arrays:
        return {"map": disc.copy()}

    inputs, outputs = (TensorSpec("image", (1, 3, height, width), "float32"),), (TensorSpec("map", disc.shape, "float32"),)
    return Runtime.from_session(MemorySession(answer, inputs, outputs, delay_s=sleep_ms / 1e3), recipe)


class _Camera(Source):
    """Gives a frame at fixed times, whoever takes it."""

    name = "camera"
    is_live = True

    def __init__(self, num: int, fps: float) -> None:
        self._num, self.fps = num, fps

    def __iter__(self) -> Iterator[Frame]:
        assert self.fps
        begun_s = time.perf_counter()
        for k in range(self._num):
            time.sleep(max(0.0, begun_s + k / self.fps - time.perf_counter()))
            yield Frame(np.zeros((72, 128, 3), np.uint8), k, k / self.fps, self.name, time.perf_counter())


def _summary(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 4), "min": round(min(values), 4), "max": round(max(values), 4)}


if __name__ == "__main__":
    run(main)
