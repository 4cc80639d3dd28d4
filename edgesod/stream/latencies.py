"""Latencies of a run that may last for months, in memory that does not grow."""

from __future__ import annotations

from array import array

from edgesod.timing import LatencySummary

LIMIT = 10_000
"""Latencies kept per stage: the last five minutes at 30 fps, in 80 kB."""


class Latencies:
    """The latest :data:`LIMIT` latencies of one stage; a ring, because what matters after a month is how it runs now.

    Its memory is taken at once, so that a run's does not creep up for as long as the ring fills.
    """

    def __init__(self) -> None:
        self._values_ms = array("d", bytes(8 * LIMIT))
        self._num_added = 0

    def add(self, value_ms: float) -> None:
        """Take a latency in milliseconds; past the limit, it takes the place of the oldest."""
        self._values_ms[self._num_added % len(self._values_ms)] = value_ms
        self._num_added += 1

    def latest(self, most: int) -> list[float]:
        """Return the latest ``most`` latencies, or all that are kept, oldest first."""
        length = len(self._values_ms)
        start = self._num_added - min(most, self._num_added, length)
        return [self._values_ms[k % length] for k in range(start, self._num_added)]

    def summary(self) -> LatencySummary | None:
        """Summarise what is kept; ``None`` when nothing was added."""
        return LatencySummary.from_ms(self.latest(LIMIT)) if self._num_added else None
