"""Capture, inference, rendering and sinks, each in a thread of its own, watched over by the caller's.

::

    capture, one ──2 frames──▶ inference ──2 results──▶ render ──2 pictures──▶ sinks
    a source                   the sources in turn                             one after the other

Of a live source only the newest waits between two threads; a file's frames all do.

The caller's thread does none of the work, so Ctrl-C meets it whatever the others do, and it can tell which of them does not
come back. Whoever stops first, by an error or at the end, wakes the others; the caller's thread alone shuts down.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from numpy.typing import NDArray

from edgesod.errors import EdgesodError, OutputError
from edgesod.stream.base import Sink, Source
from edgesod.stream.failure import Failure
from edgesod.stream.handover import HandoverEnded, take_from
from edgesod.stream.inference import Done, Inference, OnFrame, Process, hand_overs
from edgesod.stream.outlet import Outlet
from edgesod.stream.stage import Stage
from edgesod.stream.statistics import RENDER, SINK, LiveStatistics
from edgesod.timing import LatencySummary
from edgesod.types import Frame, Result

Render = Callable[[Frame, Result], NDArray[Any]]

_log = logging.getLogger("edgesod.stream")

LOST_AFTER_S = 10.0
STALLED_AFTER_S = 30.0
_LOOK_S = 0.1
_GRACE_S = 1.5
_FINISH_S = 10.0


@dataclass(frozen=True)
class PipelineReport:
    """What a run did.

    Attributes:
        frames: Frames that went all the way.
        dropped: Frames of a live source that a newer one overtook before inference took them.
        late: Frames of a live source whose result a newer one overtook before the sinks were free.
        reconnects: How often a source was lost and came back.
        seconds: From the start until every sink was finished.
        fps: ``frames / seconds``: end to end, with decoding and encoding.
        stages_ms: Latency by stage over the last 10 000 frames: ``capture`` (decoding for files, mostly waiting when
            live), ``preprocess``, ``inference``, ``postprocess`` and whatever else a result names, ``render``, ``sink``,
            ``end_to_end`` (capture complete to sink done).
        frame_age_ms: Over as many, how long a frame had been complete when ``inference``, ``render`` and the ``sink`` thread took
            it, and when the sinks were ``done`` with it.
        interrupted: Whether Ctrl-C ended it.
    """

    frames: int
    dropped: int
    late: int
    reconnects: int
    seconds: float
    fps: float
    stages_ms: dict[str, LatencySummary]
    frame_age_ms: dict[str, LatencySummary]
    interrupted: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers by name, ready for JSON."""
        return asdict(self)


def run_pipeline(
    source: Source | Sequence[Source],
    process: Process,
    render: Render | None,
    sinks: Sequence[Sink],
    *,
    on_frame: OnFrame | None = None,
    max_frames: int | None = None,
    stop: threading.Event | None = None,
    lost_after_s: float = LOST_AFTER_S,
    stalled_after_s: float = STALLED_AFTER_S,
    statistics: LiveStatistics | None = None,
) -> PipelineReport:
    """Run every frame of one or several sources through a network and on to the sinks; close all of them.

    Args:
        source: An open source. Live, the newest frame is taken and older ones are dropped; otherwise every frame is. Of several
            open sources one frame is taken from each in turn, and ``frame.source`` says which it comes from.
        process: Called in the inference thread. Its result's ``times_ms`` go into the report; where there are none, its own
            duration counts as ``inference``.
        render: Called in a thread of its own, where a sink wants pictures; gives the uint8 picture the sinks take. ``None`` passes
            the frame's own.
        sinks: Open sinks; each gets every picture, and any of them may ask for the end.
        on_frame: Called in the inference thread after ``process``, for progress.
        max_frames: Stop after so many.
        stop: Stop when set, from whatever thread.
        lost_after_s: How long a live source may deliver nothing, in seconds, unless it is reconnecting; longer where its own time-outs
            are (``source.patience_s``).
        stalled_after_s: How long reading a file, ``process``, ``render`` or one sink may take for one frame, in seconds; a file behind a
            network as long as its time-outs allow.
        statistics: Fed while the run goes on, for whoever else looks at it.

    Returns:
        The numbers; also when Ctrl-C ended the run, and the outputs then hold every frame that was processed.

    Raises:
        SourceLost: A live source delivered nothing for ``lost_after_s``.
        InputError: Reading another source took ``stalled_after_s``.
        DeviceError: ``process`` did.
        OutputError: Rendering or a sink did.
        Exception: Whatever a stage raised, as it was raised. What the sinks hold is thrown away, except of a live source:
            then only the output of a sink that raised is. Of a file and a live source together, a sink that takes frames of the
            live one keeps them.
    """
    sources = [source] if isinstance(source, Source) else list(source)
    statistics = statistics or LiveStatistics()
    failure = Failure()
    inference = Inference(sources, process, statistics, failure, on_frame=on_frame, max_frames=max_frames)
    rendering = _rendering(render, sinks, inference, statistics, failure)
    pictures = rendering.outputs if rendering else inference.results
    outlet = Outlet(pictures, sinks, [one.is_live for one in sources], statistics, failure)
    interrupted = False
    started_s = time.perf_counter()
    statistics.begin(sources)
    try:
        inference.start()
        if rendering:
            rendering.thread.start()
        outlet.thread.start()
        while not outlet.ended.wait(_LOOK_S) and not (stop and stop.is_set()) and not any(sink.is_done for sink in sinks):
            inference.check(lost_after_s, stalled_after_s)
            if rendering:
                rendering.check(stalled_after_s)
            outlet.check(stalled_after_s)
    except KeyboardInterrupt:
        interrupted = True
    except EdgesodError as error:
        failure.note(error)
    # In a thread of its own, so that a further Ctrl-C meets nothing that it could break off.
    ending = threading.Thread(target=_shut_down, args=(inference, rendering, outlet), name="edgesod-end")
    ending.start()
    while ending.is_alive():
        with suppress(KeyboardInterrupt):
            ending.join()
    statistics.end()
    if failure.error is not None:
        raise failure.error
    seconds = time.perf_counter() - started_s
    now = statistics.snapshot()
    return PipelineReport(
        now["frames"],
        now["dropped"],
        now["late"],
        now["reconnects"],
        seconds,
        now["frames"] / seconds,
        statistics.stages_ms(),
        statistics.frame_age_ms(),
        interrupted,
    )


def stream_results(
    source: Source | Sequence[Source],
    process: Process,
    *,
    statistics: LiveStatistics | None = None,
    lost_after_s: float = LOST_AFTER_S,
    stalled_after_s: float = STALLED_AFTER_S,
) -> Iterator[Result]:
    """Yield what ``process`` makes of every frame, with the same threads as :func:`run_pipeline` and the caller as the sink.

    While the caller works on one result, the next ones are computed; of a live source it gets the newest. See there for the
    arguments and errors.
    """
    sources = [source] if isinstance(source, Source) else list(source)
    statistics = statistics or LiveStatistics()
    failure = Failure()
    inference = Inference(sources, process, statistics, failure)
    number = -1
    statistics.begin(sources)
    try:
        inference.start()
        while True:
            inference.check(lost_after_s, stalled_after_s)
            try:
                number, done = take_from(inference.results, (number + 1) % len(sources), _LOOK_S)
            except TimeoutError:
                continue
            except HandoverEnded:
                break
            statistics.add_age(SINK, time.perf_counter() - done.frame.captured_at_s)
            statistics.add_done((done.frame.image.shape[0], done.frame.image.shape[1]))
            yield done.result
            del done
    finally:
        inference.cancel()
        for handover in inference.results:
            handover.close()
        inference.join(time.perf_counter() + _GRACE_S)
        statistics.end()
    if failure.error is not None:
        raise failure.error


def _rendering(
    render: Render | None, sinks: Sequence[Sink], inference: Inference, statistics: LiveStatistics, failure: Failure
) -> Stage[Done, Done] | None:
    """Return the stage that renders, where there is something to render and a sink that wants it."""
    if render is None or not any(sink.wants_picture for sink in sinks):
        return None

    def work(done: Done) -> Done:
        begun_s = time.perf_counter()
        statistics.add_age(RENDER, begun_s - done.frame.captured_at_s)
        takers = [sink for sink in sinks if sink.takes(done.frame)]
        if not any(sink.wants_picture for sink in takers):
            return done._replace(takers=takers)
        image = render(done.frame, done.result)
        statistics.add_stages({"render": (time.perf_counter() - begun_s) * 1e3})
        return Done(done.frame, done.result, image, takers)

    def overdue(done: Done, limit_s: float) -> OutputError:
        return OutputError(f"rendering frame {done.frame.index} has not come back for {limit_s:g} s")

    pictures = hand_overs([capture.source for capture in inference.captures], statistics)
    return Stage("render", inference.results, work, pictures, failure, overdue=overdue)


def _shut_down(inference: Inference, rendering: Stage[Done, Done] | None, outlet: Outlet) -> None:
    """End every thread and finish the sinks, leaving behind what does not come back.

    A frame in the engine gets half of the time there is: its result is worth having, the outputs are worth more.
    """
    now_s = time.perf_counter()
    until_s = now_s + _GRACE_S
    inference.cancel()
    _wait(lambda: not inference.thread.is_alive(), now_s + _GRACE_S / 2)
    for handover in inference.results:
        handover.finish()
    _wait(outlet.ended.is_set, now_s + _GRACE_S * 3 / 4)
    for handover in rendering.outputs if rendering else ():
        handover.finish()
    _wait(outlet.ended.is_set, until_s)
    if outlet.is_finishing:
        _wait(outlet.ended.is_set, until_s + _FINISH_S)
    if not outlet.ended.is_set():
        outlet.abandon()
    left = inference.join(until_s)
    if rendering and not rendering.join(until_s):
        left.append("rendering")
    for name in left:
        _log.warning("%s does not come back; left behind, it closes if it ever does", name)


def _wait(is_done: Callable[[], bool], until_s: float) -> None:
    while not is_done() and time.perf_counter() < until_s:
        time.sleep(0.01)
