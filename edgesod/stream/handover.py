"""A bounded queue between two threads in which nobody can be left waiting for someone who has gone."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Handover(Generic[T]):
    """What one thread gives and another takes.

    The giver ends it with :meth:`finish`, after which the taker still gets what is there, then the giver's error. The
    taker ends it with :meth:`close`, after which the giver's next :meth:`give` returns ``False``. Each wakes the other.

    Args:
        capacity: How many items may wait.
        keeps_newest: When full, throw the oldest away (and count it) instead of making the giver wait.
    """

    def __init__(self, capacity: int, *, keeps_newest: bool = False) -> None:
        self.num_dropped = 0
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._keeps_newest = keeps_newest
        self._changed = threading.Condition()
        self._is_finished = False
        self._is_closed = False
        self._error: BaseException | None = None

    def give(self, item: T) -> bool:
        """Hand an item over, waiting for room; return ``False`` when the taker has gone."""
        with self._changed:
            if self._keeps_newest:
                while len(self._items) >= self._capacity:
                    self._items.popleft()
                    self.num_dropped += 1
            self._changed.wait_for(lambda: self._is_closed or len(self._items) < self._capacity)
            if self._is_closed:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def finish(self, error: BaseException | None = None) -> None:
        """Say that nothing more comes; ``error`` is raised at the taker once everything given is taken."""
        with self._changed:
            self._is_finished, self._error = True, error
            self._changed.notify_all()

    def take(self, timeout_s: float | None = None) -> T:
        """Take the oldest item, waiting for one.

        Raises:
            HandoverEnded: Nothing more comes, or this end was closed.
            TimeoutError: Nothing came within ``timeout_s`` seconds.
            BaseException: What the giver finished with, once.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._items or self._is_finished or self._is_closed, timeout_s):
                raise TimeoutError(f"nothing was handed over in {timeout_s} s")
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            error, self._error = self._error, None
            if error is not None and not self._is_closed:
                raise error
            raise HandoverEnded

    def close(self) -> None:
        """Say that nothing more is taken; what waits is thrown away."""
        with self._changed:
            self._is_closed = True
            self._items.clear()
            self._changed.notify_all()


class HandoverEnded(Exception):
    """Everything that was handed over has been taken."""
