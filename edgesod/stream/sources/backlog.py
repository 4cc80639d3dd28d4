"""Notice when a network stream is read more slowly than it comes, and say what to leave out to catch up.

What is not read waits in the sockets' buffers, seconds of it, and a picture's age counted from its decoding does not show it.
"""

from __future__ import annotations

import math
from enum import Enum, auto

_LATE_S = 1.0
_PATIENCE_S = 2.0
_CAUGHT_UP_S = 0.5
_DRAINED_S = 3.0
_JUMP_S = 30.0
_DRIFT = 1e-3


class Advice(Enum):
    """What to do with a packet."""

    SHOW = auto()
    """Decode it and yield the pictures."""
    DECODE = auto()
    """Decode it for the sake of those after it; its pictures are too old."""
    SKIP = auto()
    """Do not decode it."""


class Backlog:
    """How far behind the camera a reader is: the delay of a packet above the least delay seen.

    A stream that is a second behind is decoded without being shown, which is enough after a stall of the network. Where
    that does not help within two seconds, decoding itself is too slow, and packets are skipped up to a key frame. A clock
    that jumps looks like a delay; it costs a few seconds at most, because a skip that long begins the count anew.
    """

    def __init__(self) -> None:
        self._least_s = math.inf
        self._last_s = 0.0
        self._late_since_s: float | None = None
        self._skips_since_s: float | None = None

    def advice(self, time_s: float, now_s: float, is_key: bool) -> Advice:
        """Take note of a packet.

        Args:
            time_s: Its presentation time by the camera's clock.
            now_s: ``time.perf_counter()`` when it was read.
            is_key: Whether decoding can begin with it.
        """
        delay_s = now_s - time_s
        if abs(delay_s - self._least_s) > _JUMP_S:
            self._restart(delay_s)
        # The floor rises by a thousandth of the time, more than two clocks drift apart.
        self._least_s = min(delay_s, self._least_s + _DRIFT * (now_s - self._last_s))
        self._last_s = now_s
        behind_s = delay_s - self._least_s
        if self._skips_since_s is not None:
            # What is not decoded is read in no time, so that a delay still left after some seconds of it is the clock's.
            is_clock = now_s - self._skips_since_s > _DRAINED_S
            if not is_key or not (is_clock or behind_s < _CAUGHT_UP_S):
                return Advice.SKIP
            self._restart(delay_s if is_clock else self._least_s)
            return Advice.SHOW
        if behind_s < _LATE_S:
            self._late_since_s = None
            return Advice.SHOW
        if self._late_since_s is None:
            self._late_since_s = now_s
        if now_s - self._late_since_s > _PATIENCE_S:
            self._skips_since_s = now_s
            return Advice.SKIP
        return Advice.DECODE

    def _restart(self, least_s: float) -> None:
        self._least_s, self._late_since_s, self._skips_since_s = least_s, None, None
