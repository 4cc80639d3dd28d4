"""Capture, inference and sink, each in a thread of its own.

::

    capture thread  ──2 frames──▶  caller's thread  ──2 results──▶  sink thread
    source          (live: the      process           (waits)       render, then every sink
                    newest one)

Inference stays in the caller's thread, because a CUDA context belongs to one thread and so that Ctrl-C meets it. Whoever
stops first, by an error or at the end, wakes the others, and :func:`run_pipeline` alone shuts down.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesod.stream.base import Sink, Source
from edgesod.stream.capture import Capture
from edgesod.stream.handover import Handover, HandoverEnded
from edgesod.stream.latencies import Latencies
from edgesod.timing import LatencySummary
from edgesod.types import Frame, Result

Render = Callable[[Frame, Result], NDArray[np.uint8]]

_WAITING = 2

_log = logging.getLogger("edgesod.stream")


@dataclass(frozen=True)
class PipelineReport:
    """What a run did.

    Attributes:
        frames: Frames that went all the way.
        dropped: Frames of a live source that were skipped to keep up.
        seconds: From the start until every sink was finished.
        fps: ``frames / seconds``: end to end, with decoding and encoding.
        stages_ms: Latency by stage over the last 100 000 frames: ``capture`` (decoding for files, mostly waiting when
            live), ``preprocess``, ``inference``, ``postprocess`` and whatever else a result names, ``render``, ``sink``,
            ``end_to_end`` (capture complete to sink done) and, when live, ``frame_age`` (capture complete to the start
            of inference).
        interrupted: Whether Ctrl-C ended it.
    """

    frames: int
    dropped: int
    seconds: float
    fps: float
    stages_ms: dict[str, LatencySummary]
    interrupted: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers by name, ready for JSON."""
        return asdict(self)


def run_pipeline(
    source: Source,
    process: Callable[[Frame], Result],
    render: Render | None,
    sinks: Sequence[Sink],
    *,
    on_frame: Callable[[Frame, Result], None] | None = None,
    max_frames: int | None = None,
    stop: threading.Event | None = None,
    lost_after_s: float = 10.0,
) -> PipelineReport:
    """Run every frame of a source through a network and on to the sinks; close all of them.

    Args:
        source: An open source. Live, the newest frame is taken and older ones are dropped; otherwise every frame is.
        process: Called in this thread. Its result's ``times_ms`` go into the report; where there are none, its own
            duration counts as ``inference``.
        render: Called in the sink thread; gives the uint8 picture the sinks take. ``None`` passes the frame's own.
        sinks: Open sinks; each gets every picture.
        on_frame: Called in this thread after ``process``, for progress.
        max_frames: Stop after so many.
        stop: Stop when set, from whatever thread.
        lost_after_s: How long a live source may deliver nothing, in seconds.

    Returns:
        The numbers; also when Ctrl-C ended the run, and the outputs then hold every frame that was processed.

    Raises:
        SourceLost: A live source delivered nothing for ``lost_after_s``.
        Exception: Whatever a stage raised, as it was raised. What the sinks hold is thrown away, except of a live source:
            then only the output of a sink that raised is.
    """
    started_s = time.perf_counter()
    latencies: dict[str, Latencies] = defaultdict(Latencies)
    interrupted = False
    capture = Capture(source, stop=stop, lost_after_s=lost_after_s)
    with _Outlet(render, sinks, source.is_live, on_failure=capture.cancel) as outlet:
        try:
            with capture:
                for frame in islice(capture, max_frames):
                    begun_s = time.perf_counter()
                    if source.is_live:
                        latencies["frame_age"].add((begun_s - frame.captured_at_s) * 1e3)
                    result = process(frame)
                    for stage, value_ms in (result.times_ms or {"inference": (time.perf_counter() - begun_s) * 1e3}).items():
                        latencies[stage].add(value_ms)
                    if not outlet.give(frame, result):
                        break
                    if on_frame:
                        on_frame(frame, result)
        except KeyboardInterrupt:
            interrupted = True
    seconds = time.perf_counter() - started_s
    latencies.update(outlet.latencies, capture=capture.latencies)
    order = ("capture", "frame_age", "preprocess", "inference", "postprocess")
    names = sorted(latencies, key=lambda name: order.index(name) if name in order else len(order))
    stages_ms = {name: summary for name in names if (summary := latencies[name].summary())}
    frames = outlet.num_frames
    return PipelineReport(frames, capture.num_dropped, seconds, frames / seconds, stages_ms, interrupted)


class _Outlet:
    """The sink thread. Leaving its ``with`` block drains it, finishes the sinks and raises what went wrong there."""

    def __init__(self, render: Render | None, sinks: Sequence[Sink], is_live: bool, on_failure: Callable[[], None]) -> None:
        self._is_live = is_live
        self.num_frames = 0
        self.latencies: dict[str, Latencies] = {name: Latencies() for name in ("render", "sink", "end_to_end")}
        self._render = render
        self._sinks = sinks
        self._on_failure = on_failure
        self._jobs: Handover[tuple[Frame, Result]] = Handover(_WAITING)
        self._error: BaseException | None = None
        self._failed_sink: Sink | None = None
        self._thread = threading.Thread(target=self._work, name="edgesod-sink", daemon=True)

    def give(self, frame: Frame, result: Result) -> bool:
        """Hand a result over, waiting for room; return ``False`` when this stage has failed."""
        return self._jobs.give((frame, result))

    def __enter__(self) -> _Outlet:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._jobs.finish()
        self._thread.join()
        # a camera's pictures do not come again, so what was recorded of it is kept; a file can be run once more
        has_failed = (error is not None or self._error is not None) and not self._is_live
        for sink in self._sinks:
            try:
                if has_failed or sink is self._failed_sink:
                    sink.abort()
                else:
                    sink.close()
            except Exception as caught:
                self._note(caught)
        if self._error is None:
            return
        if error is not None:
            _log.warning("besides %s: %s", type(error).__name__, self._error)
            return
        raise self._error

    def _work(self) -> None:
        try:
            while True:
                frame, result = self._jobs.take()
                begun_s = time.perf_counter()
                image = frame.image if self._render is None else self._render(frame, result)
                rendered_s = time.perf_counter()
                for sink in self._sinks:
                    self._failed_sink = sink
                    sink.write(image, frame)
                    self._failed_sink = None
                done_s = time.perf_counter()
                if self._render is not None:
                    self.latencies["render"].add((rendered_s - begun_s) * 1e3)
                self.latencies["sink"].add((done_s - rendered_s) * 1e3)
                self.latencies["end_to_end"].add((done_s - frame.captured_at_s) * 1e3)
                self.num_frames += 1
        except HandoverEnded:
            return
        except BaseException as caught:
            self._note(caught)
            self._jobs.close()
            self._on_failure()

    def _note(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        else:
            _log.warning("besides %s: %s", type(self._error).__name__, error)
