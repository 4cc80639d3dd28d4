"""Put sources, runtime, look and sinks together for one run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.cli import _output
from edgesod.errors import UsageError
from edgesod.processing.look import Look
from edgesod.processing.steady import Steady, SteadySettings
from edgesod.runtime import Runtime
from edgesod.stream import LiveStatistics, PipelineReport, SheetSink, Sink, Source, open_sink, run_pipeline
from edgesod.stream.uri import scheme_of
from edgesod.types import Frame, Result


def open_sinks(stack: ExitStack, sources: Sequence[Source], *, outs: Sequence[str], sheet: Path | None) -> list[Sink]:
    """Open what a run writes to; ``stack`` throws it away should the run not come about."""
    sinks = [sink for out in outs for sink in _open_out(stack, sources, out)]
    if sheet is not None:
        sinks.append(stack.enter_context(SheetSink(sheet)))
    return sinks


def run_session(
    runtime: Runtime,
    sources: Sequence[Source],
    sinks: list[Sink],
    look: Look,
    *,
    steady: SteadySettings | None = None,
    max_frames: int | None = None,
    stop_after_s: float | None = None,
    statistics: LiveStatistics | None = None,
) -> PipelineReport:
    """Run open sources through a runtime into open sinks and return what was measured; sources and sinks are closed."""
    cv2.setNumThreads(1)  # every stage has a thread of its own; OpenCV's own ones would spin on the network's cores
    lengths = [source.num_frames for source in sources]
    known = [sum(n for n in lengths if n is not None)] if None not in lengths else []
    total = min([*known, *([max_frames] if max_frames else [])], default=None)
    stop = threading.Event()
    timer = threading.Timer(stop_after_s or 0, stop.set)
    timer.daemon = True
    done = 0
    with _output.progress("run") as update:

        def on_frame(_frame: Frame, _result: Result) -> None:
            nonlocal done
            done += 1
            update(done, total)

        if stop_after_s:
            timer.start()
        try:
            return run_pipeline(
                sources,
                _process(runtime, look, steady, len(sources)),
                look.render,
                sinks,
                on_frame=on_frame,
                max_frames=max_frames,
                stop=stop,
                statistics=statistics,
            )
        finally:
            timer.cancel()


def _process(runtime: Runtime, look: Look, settings: SteadySettings | None, num: int) -> Callable[[Frame], Result]:
    def infer(image: NDArray[np.uint8]) -> Result:
        return look.cut(runtime(image))  # here, so that what looks at the mask and not at the picture has it too

    if settings is None:
        return lambda frame: infer(frame.image)
    steadies = [Steady(settings) for _ in range(num)]
    return lambda frame: look.cut(steadies[frame.source](frame, infer))  # a map shown again keeps the threshold it had


def out_names(out: str, num: int) -> list[str]:
    """Return an output's name for each of so many sources, numbered before the suffix; a single one where they share it.

    Raises:
        UsageError: It can be neither shared nor numbered.
    """
    scheme = scheme_of(out)
    if num == 1 or out == "null" or scheme not in ("", "file", "rtsp"):
        return [out]
    if out == "-":
        raise UsageError("pictures of several sources would run together in one pipe", hint="one input with --out -")
    if scheme == "rtsp":
        place, mark, query = out.partition("?")
        return [f"{place}-{k}{mark}{query}" for k in range(num)]
    path = Path(out.removeprefix("file://"))
    if not path.name:
        raise UsageError(f"--out {out} has no name to number, and there are several sources", hint="--out out.mp4")
    return [str(path.with_name(f"{path.stem}-{k}{path.suffix}")) for k in range(num)]


def _open_out(stack: ExitStack, sources: Sequence[Source], out: str) -> list[Sink]:
    """Open an output; of several sources each gets a file or stream of its own."""
    names = out_names(out, len(sources))
    sinks = []
    for number, (name, source) in enumerate(zip(names, sources, strict=False)):
        sink = stack.enter_context(open_sink(name, fps=source.fps, is_live=source.is_live))
        sink.source = number if len(names) > 1 else None
        sinks.append(sink)
    return sinks
