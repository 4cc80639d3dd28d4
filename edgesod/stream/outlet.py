"""The sink thread: write to every sink, and finish them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from edgesod.errors import OutputError
from edgesod.stream.base import Sink
from edgesod.stream.failure import Failure
from edgesod.stream.handover import Handover, HandoverEnded, take_from
from edgesod.stream.inference import Done
from edgesod.stream.statistics import DONE, SINK, LiveStatistics

_log = logging.getLogger("edgesod.stream")


class Outlet:
    """The thread that takes pictures, writes them to every sink, and finishes the sinks.

    When the run failed, what the sinks hold is thrown away; unless it is of a live source, whose pictures do not come again:
    then only the output of a sink that raised is.

    Args:
        pictures: Taken from in turn; they share one condition.
        sinks: Each gets the pictures it takes.
        is_live: Of each source, whether its pictures do not come again.
        statistics: Fed.
        failure: Told what a sink raises.

    Attributes:
        ended: Set once the sinks are finished.
        is_finishing: Whether that is under way.
    """

    def __init__(
        self,
        pictures: Sequence[Handover[Done]],
        sinks: Sequence[Sink],
        is_live: Sequence[bool],
        statistics: LiveStatistics,
        failure: Failure,
    ) -> None:
        self.ended = threading.Event()
        self.is_finishing = False
        self._pictures = pictures
        self._sinks = sinks
        self._statistics = statistics
        self._failure = failure
        self._is_live = is_live
        self._busy: _Busy | None = None
        self._failed: Sink | None = None
        self._is_abandoned = False
        self.thread = threading.Thread(target=self._work, name="edgesod-sink", daemon=True)

    def check(self, stalled_after_s: float) -> None:
        """Raise when a sink does not come back.

        Raises:
            OutputError: It kept this thread for ``stalled_after_s``.
        """
        busy = self._busy
        if busy and time.perf_counter() - busy.since_s > stalled_after_s:
            raise OutputError(f"{busy.what} has not come back for {stalled_after_s:g} s", hint="see what takes its output")

    def abandon(self) -> None:
        """Leave the thread behind, which touches no sink again should it ever come back, and finish the other sinks."""
        self._is_abandoned = True
        busy = self._busy
        _log.warning("%s does not come back: left behind", busy.what if busy else "the sink thread")
        self._finish([sink for sink in self._sinks if busy is None or sink is not busy.sink])

    def _work(self) -> None:
        try:
            self._take_all()
        except BaseException as caught:
            self._failure.note(caught)
            for handover in self._pictures:
                handover.close()
        if not self._is_abandoned:
            self.is_finishing = True
            self._finish(self._sinks)
        self._busy = None
        self.ended.set()

    def _take_all(self) -> None:
        number = -1
        while not self._is_abandoned:
            try:
                number, done = take_from(self._pictures, (number + 1) % len(self._pictures))
            except HandoverEnded:
                return
            self._write(done)
            del done  # or the last of them would live for as long as the next one takes to come

    def _write(self, done: Done) -> None:
        frame, result, image, takers = done
        begun_s = time.perf_counter()
        self._statistics.add_age(SINK, begun_s - frame.captured_at_s)
        for sink in [sink for sink in self._sinks if sink.takes(frame)] if takers is None else takers:
            self._busy = _Busy(time.perf_counter(), f"{sink.name}, given frame {frame.index},", sink)
            self._failed = sink
            sink.write(image, frame, result)
            self._failed = None
            if self._is_abandoned:
                return
        self._busy = None
        done_s = time.perf_counter()
        age_s = done_s - frame.captured_at_s
        self._statistics.add_stages({"sink": (done_s - begun_s) * 1e3, "end_to_end": age_s * 1e3})
        self._statistics.add_age(DONE, age_s)
        self._statistics.add_done((frame.image.shape[0], frame.image.shape[1]))

    def _finish(self, sinks: Sequence[Sink]) -> None:
        has_failed = self._failure.error is not None
        for sink in sinks:
            if not self._is_abandoned:
                self._busy = _Busy(time.perf_counter(), f"{sink.name}, being finished,", sink)
            try:
                if sink is self._failed or (has_failed and not self._comes_once(sink)):
                    sink.abort()
                else:
                    sink.close()
            except Exception as caught:
                self._failure.note(caught)

    def _comes_once(self, sink: Sink) -> bool:
        return any(self._is_live) if sink.source is None else self._is_live[sink.source]


class _Busy(NamedTuple):
    since_s: float
    what: str
    sink: Sink
