"""Read a source in a thread of its own."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time

from edgesod.errors import EdgesodError, InputError, SourceLost
from edgesod.stream.base import Source
from edgesod.stream.handover import Handover
from edgesod.stream.statistics import LiveStatistics
from edgesod.types import Frame

_AHEAD = 2

_log = logging.getLogger("edgesod.stream")


class Capture:
    """The thread that reads a source ahead and closes it at the end.

    A live source keeps only the newest frame, so what comes is never older than one frame's time; others keep every
    frame, in order.

    Args:
        source: An open source.
        number: Which of the run's sources it is.
        statistics: Told how long the source took for each frame (decoding for files, mostly waiting when live), and of
            frames that were overtaken.
        changed: Condition of the hand-over, for several sources taken from together.

    Attributes:
        frames: Where the frames are taken; ends with what the source raised, after every frame before it.
    """

    def __init__(
        self, source: Source, number: int, statistics: LiveStatistics, changed: threading.Condition | None = None
    ) -> None:
        self.source = source
        self.frames: Handover[Frame] = Handover(
            1 if source.is_live else _AHEAD,
            keeps_newest=source.is_live,
            on_overtaken=statistics.add_dropped,
            changed=changed,
        )
        self._number = number
        self._statistics = statistics
        self._waiting_since_s: float | None = None
        self.thread = threading.Thread(target=self._read, name=f"edgesod-capture-{number}", daemon=True)
        self._closer: threading.Thread | None = None

    def cancel(self) -> None:
        """Have the thread end after the frame in hand, or at once where the source only waits; safe to call twice."""
        self.frames.close()
        if self._closer is None:  # a thread, because closing waits for a read that may not come back
            self._closer = threading.Thread(target=self._close, name=f"edgesod-close-{self._number}", daemon=True)
            self._closer.start()

    def join(self, until_s: float) -> bool:
        """Wait for the end until ``time.perf_counter()`` says ``until_s``; return whether it came."""
        for thread in (self.thread, self._closer):
            if thread is not None and thread.ident is not None:
                thread.join(max(0.0, until_s - time.perf_counter()))
        return not self.thread.is_alive()

    def overdue(self, now_s: float, lost_after_s: float, stalled_after_s: float) -> EdgesodError | None:
        """Return what is wrong when the source has kept its thread for too long; one that reconnects may take its time."""
        since_s = self._waiting_since_s
        if since_s is None or self.source.state == "reconnecting":
            return None
        name, is_live = self.source.name, self.source.is_live
        limit_s = max(lost_after_s if is_live else stalled_after_s, self.source.patience_s)
        if now_s - since_s <= limit_s:
            return None
        if is_live:
            return SourceLost(
                f"{name} delivered nothing for {limit_s:g} s", hint="check its cable or network, then start again"
            )
        return InputError(f"{name} has not come back from reading for {limit_s:g} s", hint="check where it lies")

    def _close(self) -> None:
        try:
            self.source.close()
        except Exception as error:
            _log.warning("%s cannot be closed: %s", self.source.name, error)

    def _read(self) -> None:
        error: BaseException | None = None
        try:
            with self.source:
                begun_s = self._waiting_since_s = time.perf_counter()
                for frame in self.source:
                    self._waiting_since_s = None
                    self._statistics.add_stages({"capture": (time.perf_counter() - begun_s) * 1e3})
                    if not self.frames.give(dataclasses.replace(frame, source=self._number) if self._number else frame):
                        break
                    begun_s = self._waiting_since_s = time.perf_counter()
        except BaseException as caught:
            error = caught
        self._waiting_since_s = None
        self.frames.finish(error)
