"""Captures and the inference thread: frames of one or several sources in, results out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from edgesod.errors import DeviceError
from edgesod.stream.base import Sink, Source
from edgesod.stream.capture import Capture
from edgesod.stream.failure import Failure
from edgesod.stream.handover import Handover
from edgesod.stream.stage import Stage
from edgesod.stream.statistics import INFERENCE, LiveStatistics
from edgesod.types import Frame, Result

_WAITING = 2

Process = Callable[[Frame], Result]
OnFrame = Callable[[Frame, Result], None]


class Done(NamedTuple):
    """A frame, what the network made of it, and the picture for the sinks: the frame's own until it is rendered.

    ``takers`` are the sinks that are given it, where they were asked already.
    """

    frame: Frame
    result: Result
    image: NDArray[Any]
    takers: Sequence[Sink] | None = None


class Inference:
    """A thread for each source, and one that takes from them in turn and runs the network on one frame after another.

    Several sources share the engine fairly: after a frame of one, the others are looked at first. Engines are run on
    one frame at a time, so there is no batch to fill.

    Args:
        sources: Open sources; closed by their threads.
        process: Called in the inference thread.
        statistics: Fed.
        failure: Told what a source or ``process`` raises.
        on_frame: Called in the inference thread after each result was handed over.
        max_frames: Stop after so many, of all sources together.

    Attributes:
        results: For each source, where its results are taken.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        process: Process,
        statistics: LiveStatistics,
        failure: Failure,
        *,
        on_frame: OnFrame | None = None,
        max_frames: int | None = None,
    ) -> None:
        arrived = threading.Condition()
        self.captures = [Capture(source, k, statistics, arrived) for k, source in enumerate(sources)]
        self.results = hand_overs(sources, statistics)
        self._process = process
        self._statistics = statistics
        self._stage = Stage(
            "inference",
            [capture.frames for capture in self.captures],
            self._work,
            self.results,
            failure,
            overdue=_overdue,
            on_given=(lambda done: on_frame(done.frame, done.result)) if on_frame else None,
            most=max_frames,
        )
        self.thread = self._stage.thread

    def start(self) -> None:
        """Start the threads."""
        for capture in self.captures:
            capture.thread.start()
        self.thread.start()

    def cancel(self) -> None:
        """Have every thread end after what it has in hand, and close the sources; safe to call twice."""
        for capture in self.captures:
            capture.cancel()

    def check(self, lost_after_s: float, stalled_after_s: float) -> None:
        """Raise when a source or the engine does not come back.

        Raises:
            SourceLost: A live source delivered nothing for ``lost_after_s`` and its own patience, and is not reconnecting.
            InputError: Another source kept its thread for ``stalled_after_s`` and its own patience.
            DeviceError: The engine kept its thread for ``stalled_after_s``.
        """
        now_s = time.perf_counter()
        for capture in self.captures:
            if error := capture.overdue(now_s, lost_after_s, stalled_after_s):
                raise error
        self._stage.check(stalled_after_s)

    def join(self, until_s: float) -> list[str]:
        """Wait for the threads until ``time.perf_counter()`` says ``until_s``; return the names of what is still busy."""
        left = [] if self._stage.join(until_s) else ["inference"]
        return left + [capture.source.name for capture in self.captures if not capture.join(until_s)]

    def _work(self, frame: Frame) -> Done:
        begun_s = time.perf_counter()
        self._statistics.add_age(INFERENCE, begun_s - frame.captured_at_s)
        result = self._process(frame)
        self._statistics.add_stages(result.times_ms or {"inference": (time.perf_counter() - begun_s) * 1e3})
        return Done(frame, result, frame.image)


def hand_overs(sources: Sequence[Source], statistics: LiveStatistics) -> list[Handover[Done]]:
    """Return one hand-over of results for each source, to be taken from together.

    Of a live source only the newest waits, so that a slow taker gets no old ones, and those overtaken count as late; of the
    others every one waits its turn.
    """
    ready = threading.Condition()
    return [
        Handover(
            1 if source.is_live else _WAITING,
            keeps_newest=source.is_live,
            on_overtaken=statistics.add_late,
            changed=ready,
        )
        for source in sources
    ]


def _overdue(frame: Frame, limit_s: float) -> DeviceError:
    message = f"the engine has not come back from frame {frame.index} of {frame.name} for {limit_s:g} s"
    return DeviceError(message, hint="start again; if it happens again, `edgesod doctor`")
