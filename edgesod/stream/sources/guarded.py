"""Closing what another thread may be reading, through a library that may never come back from the read."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from edgesod.stream.base import Source

_CLOSE_WAIT_S = 1.0


class GuardedSource(Source):
    """A source that holds a device or file of a library's, which crashes when let go of during a read.

    A kind of it reads within :meth:`_turn`, and says in :meth:`_release` how to let go.
    """

    def __init__(self) -> None:
        self._reading = threading.Lock()
        self._is_closed = False
        self._is_released = False

    @abstractmethod
    def _release(self) -> None:
        """Let go of the file or device; called once, while nobody reads."""

    @contextmanager
    def _turn(self) -> Iterator[bool]:
        """Guard one read, and let go after it when the source was closed meanwhile; gives ``False`` when it is closed."""
        with self._reading:
            try:
                yield not self._is_closed
            finally:
                if self._is_closed:
                    self._let_go()

    def close(self) -> None:
        self.state = "closed"
        self._is_closed = True
        # A driver may never come back from a read; then the reader lets go, if ever.
        if self._reading.acquire(timeout=_CLOSE_WAIT_S):
            try:
                self._let_go()
            finally:
                self._reading.release()

    def _let_go(self) -> None:
        if not self._is_released:
            self._is_released = True
            self._release()
