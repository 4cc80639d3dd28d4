"""Go on with a live source that went away and came back."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from edgesod.errors import InputError, SourceLost
from edgesod.stream.base import Source
from edgesod.stream.sources.options import SourceOptions
from edgesod.types import Frame

_LONGEST_PAUSE_S = 10.0
_STUCK_AFTER_S = 60.0
"""How long past its time-outs a try may last (names are looked up without any) until its thread counts as stuck."""

_log = logging.getLogger("edgesod.stream")


class ReconnectingSource(Source):
    """A live source that is opened again when it is lost.

    Tries are ``retry_s`` apart at first, then further (:func:`pauses`). When ``reconnect_s`` have gone by without a frame, it is
    lost for good. Frames count on across a gap, and their times include it.

    Args:
        source: The source, open.
        reopen: Opens it anew; an :class:`~edgesod.errors.InputError` is a try that failed.
        options: ``reconnect_s``, ``retry_s`` and the time-outs.
    """

    is_live = True

    def __init__(self, source: Source, reopen: Callable[[], Source], options: SourceOptions) -> None:
        self.name = source.name
        self._source = source
        self._reopen = reopen
        self._options = options
        self._closing = threading.Event()
        self._stuck_at_s: float | None = None
        self.fps, self.size_hw, self.patience_s = source.fps, source.size_hw, options.patience_s

    @property
    def state(self) -> str:  # type: ignore[override]
        """``open``, ``reconnecting`` from a loss to the next frame, or ``closed``; a try that is stuck is not one."""
        if self._closing.is_set():
            return "closed"
        stuck_at_s = self._stuck_at_s
        return "reconnecting" if stuck_at_s is not None and time.perf_counter() < stuck_at_s else "open"

    def __iter__(self) -> Iterator[Frame]:
        index, first_s = 0, 0.0
        waits: Iterator[float] | None = None
        loss = ""
        while True:
            try:
                for frame in self._source:
                    if waits is not None:
                        self._note_return()
                        waits = None
                    first_s = first_s if index else frame.captured_at_s
                    self.size_hw = self._source.size_hw
                    yield replace(frame, index=index, time_s=frame.captured_at_s - first_s)
                    index += 1
                return
            except SourceLost as error:
                if self._options.reconnect_s == 0 or self._closing.is_set():
                    raise
                reason = str(error)
            if waits is None:
                _log.warning("%s", reason)
                waits, loss = pauses(self._options.retry_s, self._options.reconnect_s), reason
            if not self._come_back(waits, loss):
                return

    def close(self) -> None:
        self._closing.set()
        self._source.close()

    def _come_back(self, waits: Iterator[float], loss: str) -> bool:
        """Open the source anew; ``False`` when it was closed meanwhile.

        Raises:
            SourceLost: The patience is at an end.
        """
        self._source.close()
        for pause_s in waits:
            options = self._options
            self._stuck_at_s = time.perf_counter() + pause_s + options.open_timeout_s + options.patience_s + _STUCK_AFTER_S
            _log.info("%s: trying again in %.1f s", self.name, pause_s)
            if self._closing.wait(pause_s):
                return False
            try:
                self._source = self._reopen()
            except InputError as error:
                _log.info("%s", error)
                continue
            if self._closing.is_set():
                self._source.close()
                return False
            return True
        message = f"{loss}; it did not come back within {self._options.reconnect_s:g} s"
        raise SourceLost(message, hint="start again once it is back; the option reconnect=inf waits for ever")

    def _note_return(self) -> None:
        self.fps = self._source.fps
        self.num_reconnects += 1
        self._stuck_at_s = None
        _log.warning("%s is back (reconnects so far: %d)", self.name, self.num_reconnects)


def pauses(first_s: float, patience_s: float = math.inf) -> Iterator[float]:
    """Yield the seconds to wait before each try to reach something that is lost, until the patience is at an end.

    Twice as long each time, up to 10 s, each cut at random by up to a half so that many robots do not call one server in step.
    """
    end_s = time.perf_counter() + patience_s
    pause_s = first_s
    while (left_s := end_s - time.perf_counter()) > 0:
        yield min(random.uniform(pause_s / 2, pause_s), left_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
