"""The newest of something that a thread makes, for coroutines that each wait for one they have not seen."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Ended(Exception):
    """Nothing newer comes."""


class Newest(Generic[T]):
    """One value and its number. Whoever is slow misses what came in between; whoever puts never waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0
        self._value: T | None = None
        self._is_ended = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def num_waiting(self) -> int:
        """How many coroutines wait right now."""
        return len(self._waiting)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Name the loop in which coroutines wait, before the first one does."""
        self._loop = loop

    def put(self, value: T) -> None:
        """Take a value in place of the last one; from any thread."""
        with self._lock:
            self._number += 1
            self._value = value
        self._wake()

    def end(self) -> None:
        """Say that nothing more comes; from any thread, safe to call twice."""
        self._is_ended = True
        self._wake()

    def last(self) -> tuple[int, T | None]:
        """Return number and value of what is there; 0 and ``None`` before the first."""
        with self._lock:
            return self._number, self._value

    async def after(self, number: int) -> tuple[int, T]:
        """Return the newest one, once its number is above ``number``.

        Raises:
            Ended: Nothing newer comes.
        """
        assert self._loop is not None
        while True:
            newest, value = self.last()
            if value is not None and newest > number:
                return newest, value
            if self._is_ended:
                raise Ended
            waiter = self._loop.create_future()
            self._waiting.add(waiter)
            try:
                await waiter
            finally:
                self._waiting.discard(waiter)

    def _wake(self) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has closed, and nobody waits in it any more
                self._loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
