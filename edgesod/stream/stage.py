"""A thread that works on one thing after another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from edgesod.errors import EdgesodError
from edgesod.stream.failure import Failure
from edgesod.stream.handover import Handover, HandoverEnded, take_from

A = TypeVar("A")
B = TypeVar("B")


class Stage(Generic[A, B]):
    """Takes items from hand-overs in turn, one of each, works on them, and hands over what came of it to their counterparts.

    It ends when nothing more comes, nobody takes what it makes, or the work raises; and tells those before and behind it.

    Args:
        name: Of the thread, after ``edgesod-``.
        inputs: Taken from in turn; they share one condition.
        work: Called in the thread.
        outputs: One for each input.
        failure: Told what ``work`` or ``on_given`` raises.
        overdue: Makes the error for an item that ``work`` has had for so many seconds.
        on_given: Called in the thread with what was handed over.
        most: End after so many items.

    Attributes:
        outputs: As given.
    """

    def __init__(
        self,
        name: str,
        inputs: Sequence[Handover[A]],
        work: Callable[[A], B],
        outputs: Sequence[Handover[B]],
        failure: Failure,
        *,
        overdue: Callable[[A, float], EdgesodError],
        on_given: Callable[[B], None] | None = None,
        most: int | None = None,
    ) -> None:
        self.thread = threading.Thread(target=self._run, name=f"edgesod-{name}", daemon=True)
        self._inputs = inputs
        self._work = work
        self.outputs = outputs
        self._failure = failure
        self._overdue = overdue
        self._on_given = on_given
        self._most = most
        self._in_hand: tuple[float, A] | None = None

    def check(self, limit_s: float) -> None:
        """Raise when the work on one item has taken longer than ``limit_s``."""
        in_hand = self._in_hand
        if in_hand and time.perf_counter() - in_hand[0] > limit_s:
            raise self._overdue(in_hand[1], limit_s)

    def join(self, until_s: float) -> bool:
        """Wait for the end until ``time.perf_counter()`` says ``until_s``; return whether it came."""
        if self.thread.ident is not None:
            self.thread.join(max(0.0, until_s - time.perf_counter()))
        return not self.thread.is_alive()

    def _run(self) -> None:
        number, num_done = -1, 0
        try:
            while num_done != self._most:
                number, item = take_from(self._inputs, (number + 1) % len(self._inputs))
                self._in_hand = time.perf_counter(), item
                made = self._work(item)
                self._in_hand = None
                if not self.outputs[number].give(made):
                    break
                num_done += 1
                if self._on_given:
                    self._on_given(made)
                del item, made  # or the last of them would live for as long as the next one takes to come
        except HandoverEnded:
            pass
        except BaseException as caught:
            self._failure.note(caught)
        self._in_hand = None
        for before in self._inputs:
            before.close()
        for behind in self.outputs:
            behind.finish()
