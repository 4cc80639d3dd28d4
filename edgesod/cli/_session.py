"""Put sources, runtime, look and sinks together for one run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from edgesod.cli import _output
from edgesod.errors import UsageError
from edgesod.processing.look import Look
from edgesod.processing.steady import Steady, SteadySettings
from edgesod.runtime import Runtime
from edgesod.stream import LiveStatistics, PipelineReport, SheetSink, Sink, Source, open_sink, run_pipeline
from edgesod.stream.by_source_sink import BySourceSink
from edgesod.types import Frame, Result


def open_sinks(stack: ExitStack, sources: Sequence[Source], *, outs: Sequence[str], sheet: Path | None) -> list[Sink]:
    """Open what a run writes to; ``stack`` throws it away should the run not come about."""
    sinks: list[Sink] = [_open_out(stack, sources, out) for out in outs]
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
                _process(runtime, steady, len(sources)),
                look.render,
                sinks,
                on_frame=on_frame,
                max_frames=max_frames,
                stop=stop,
                statistics=statistics,
            )
        finally:
            timer.cancel()


def _process(runtime: Runtime, settings: SteadySettings | None, num: int) -> Callable[[Frame], Result]:
    if settings is None:
        return lambda frame: runtime(frame.image)
    steadies = [Steady(settings) for _ in range(num)]
    return lambda frame: steadies[frame.source](frame, runtime)


def _open_out(stack: ExitStack, sources: Sequence[Source], out: str) -> Sink:
    """Open an output; of several sources each gets a file of its own, numbered before the suffix."""
    path = Path(out)
    if len(sources) == 1 or "://" in out or out in ("-", "null"):
        if out == "-" and len(sources) > 1:
            raise UsageError("pictures of several sources would run together in one pipe", hint="one input with --out -")
        first = sources[0]
        return stack.enter_context(open_sink(out, fps=first.fps, is_live=first.is_live))
    names = [str(path.with_name(f"{path.stem}-{k}{path.suffix}")) for k in range(len(sources))]
    sinks = [
        stack.enter_context(open_sink(name, fps=source.fps, is_live=source.is_live))
        for name, source in zip(names, sources, strict=True)
    ]
    return BySourceSink(sinks)
