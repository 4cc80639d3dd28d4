"""Bounded queues between threads in which nobody can be left waiting for someone who has gone."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Handover(Generic[T]):
    """What one thread gives and another takes.

    The giver ends it with :meth:`finish`, after which the taker still gets what is there, then the giver's error. The
    taker ends it with :meth:`close`, after which the giver's next :meth:`give` returns ``False``. Each wakes the other.

    Args:
        capacity: How many items may wait.
        keeps_newest: When full, throw the oldest away instead of making the giver wait.
        on_overtaken: Called for each item thrown away so.
        changed: The condition to wait on; hand-overs that :func:`take_from` looks at together share one.
    """

    def __init__(
        self,
        capacity: int,
        *,
        keeps_newest: bool = False,
        on_overtaken: Callable[[], None] | None = None,
        changed: threading.Condition | None = None,
    ) -> None:
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._keeps_newest = keeps_newest
        self._on_overtaken = on_overtaken
        self._changed = changed or threading.Condition()
        self._is_finished = False
        self._is_closed = False
        self._error: BaseException | None = None

    def give(self, item: T) -> bool:
        """Hand an item over, waiting for room; return ``False`` when the taker has gone, or it was finished meanwhile."""
        with self._changed:
            if self._keeps_newest and not self._is_over:
                while len(self._items) >= self._capacity:
                    self._items.popleft()
                    if self._on_overtaken:
                        self._on_overtaken()
            self._changed.wait_for(lambda: self._is_over or len(self._items) < self._capacity)
            if self._is_over:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def finish(self, error: BaseException | None = None) -> None:
        """Say that nothing more comes; ``error`` is raised at the taker once everything given is taken.

        The first call counts, and none after :meth:`close`.
        """
        with self._changed:
            if not self._is_over:
                self._is_finished, self._error = True, error
                self._changed.notify_all()

    def take(self, timeout_s: float | None = None) -> T:
        """Take the oldest item, waiting for one; see :func:`take_from`."""
        return take_from((self,), 0, timeout_s)[1]

    def close(self) -> None:
        """Say that nothing more is taken; what waits is thrown away."""
        with self._changed:
            self._is_closed, self._error = True, None
            self._items.clear()
            self._changed.notify_all()

    @property
    def _is_over(self) -> bool:
        return self._is_finished or self._is_closed

    @property
    def _holds_something(self) -> bool:
        return bool(self._items) or self._error is not None

    def _next(self) -> T:
        if self._items:
            item = self._items.popleft()
            self._changed.notify_all()
            return item
        error, self._error = self._error, None
        assert error is not None
        raise error


def take_from(handovers: Sequence[Handover[T]], start: int, timeout_s: float | None = None) -> tuple[int, T]:
    """Take the oldest item of one of several hand-overs with one condition, waiting for one.

    Args:
        handovers: At least one.
        start: Which to look at first; the others follow in order, so that going on behind the last one taken from is fair.
        timeout_s: How long to wait.

    Returns:
        Which one it came from, and the item.

    Raises:
        HandoverEnded: Nothing more comes from any, or this end was closed.
        TimeoutError: Nothing came within ``timeout_s`` seconds.
        BaseException: What a giver finished with, once, in its turn.
    """
    order = [(start + k) % len(handovers) for k in range(len(handovers))]
    changed = handovers[0]._changed
    with changed:
        if not changed.wait_for(
            lambda: any(h._holds_something for h in handovers) or all(h._is_over for h in handovers), timeout_s
        ):
            raise TimeoutError(f"nothing was handed over in {timeout_s} s")
        for k in order:
            if handovers[k]._holds_something:
                return k, handovers[k]._next()
        raise HandoverEnded


class HandoverEnded(Exception):
    """Everything that was handed over has been taken."""
