"""Put source, runtime, effect and sinks together for one run."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgesod.cli import _output
from edgesod.processing.effects import apply_effect
from edgesod.runtime import Runtime
from edgesod.stream import PipelineReport, SheetSink, Sink, Source, open_sink, run_pipeline
from edgesod.types import Frame, Result


def run_session(
    runtime: Runtime,
    source: Source,
    *,
    out: Path | None = None,
    effect: str = "overlay",
    sheet: Path | None = None,
    max_frames: int | None = None,
    stop: threading.Event | None = None,
) -> PipelineReport:
    """Run an open source through a runtime into files and return what was measured; the source is closed."""
    runtime.warm_up()
    with source, _output.progress("run") as update:
        sinks: list[Sink] = []
        if out is not None:
            sinks.append(open_sink(str(out), fps=source.fps))
        if sheet is not None:
            sinks.append(SheetSink(sheet))
        total = min(n for n in (source.num_frames, max_frames) if n is not None) if source.num_frames or max_frames else None

        def show(frame: Frame, _: Result) -> None:
            update(frame.index + 1, total)

        def render(frame: Frame, result: Result) -> NDArray[np.uint8]:
            return apply_effect(effect, frame.image, result)

        return run_pipeline(
            source,
            lambda frame: runtime(frame.image),
            render if sinks else None,
            sinks,
            on_frame=show,
            max_frames=max_frames,
            stop=stop,
        )
