"""Put source, runtime, effect and sinks together for one run."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgesod.cli import _output
from edgesod.processing.effects import apply_effect
from edgesod.runtime import Runtime
from edgesod.stream import PipelineReport, SheetSink, Sink, Source, open_sink, run_pipeline
from edgesod.types import Frame, Result


def open_sinks(stack: ExitStack, source: Source, *, out: Path | None, sheet: Path | None) -> list[Sink]:
    """Open what a run writes to; ``stack`` throws it away should the run not come about."""
    sinks: list[Sink] = []
    if out is not None:
        sinks.append(stack.enter_context(open_sink(str(out), fps=source.fps)))
    if sheet is not None:
        sinks.append(stack.enter_context(SheetSink(sheet)))
    return sinks


def run_session(
    runtime: Runtime, source: Source, sinks: list[Sink], *, effect: str = "overlay", max_frames: int | None = None
) -> PipelineReport:
    """Run an open source through a runtime into open sinks and return what was measured; source and sinks are closed."""
    lengths = [n for n in (source.num_frames, max_frames) if n is not None]
    total = min(lengths, default=None)

    def render(frame: Frame, result: Result) -> NDArray[np.uint8]:
        return apply_effect(effect, frame.image, result)

    runtime.warm_up()
    with _output.progress("run") as update:
        return run_pipeline(
            source,
            lambda frame: runtime(frame.image),
            render if sinks else None,
            sinks,
            on_frame=lambda frame, _: update(frame.index + 1, total),
            max_frames=max_frames,
        )
