"""Latencies of a run that may last for months, in memory that does not grow."""

from __future__ import annotations

from array import array

from edgesod.timing import LatencySummary

LIMIT = 100_000
"""Latencies kept per stage: the last 55 minutes at 30 fps, in 0.8 MB."""


class Latencies:
    """The latest :data:`LIMIT` latencies of one stage; a ring, because what matters after a month is how it runs now."""

    def __init__(self) -> None:
        self._values_ms = array("d")
        self._next = 0

    def add(self, value_ms: float) -> None:
        """Take a latency in milliseconds; past the limit, it takes the place of the oldest."""
        if len(self._values_ms) < LIMIT:
            self._values_ms.append(value_ms)
            return
        self._values_ms[self._next] = value_ms
        self._next = (self._next + 1) % LIMIT

    def summary(self) -> LatencySummary | None:
        """Summarise what is kept; ``None`` when nothing was added."""
        return LatencySummary.from_ms(self._values_ms) if self._values_ms else None
