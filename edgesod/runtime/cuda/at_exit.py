"""GPUs that nobody closed are closed when the program ends: in order, and not by the garbage collector in any."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable
from typing import Any, Protocol

log = logging.getLogger("edgesod.runtime.cuda")

_WAIT_S = 1.0


class Closes(Protocol):
    """What can be closed by whoever has its lock."""

    lock: threading.RLock

    def close(self) -> None:
        """Let go of everything; safe to call twice."""


_open: dict[int, Closes] = {}
_after_all: list[Callable[[], None]] = []


def close_at_exit(it: Closes) -> None:
    """Keep it alive, and close it when the program ends."""
    _open[id(it)] = it


def forget(it: Closes) -> None:
    """Take note that there is nothing left to close."""
    _open.pop(id(it), None)


def at_exit_after_all(function: Callable[[], None]) -> None:
    """Have ``function`` called when the program ends, after everything was closed."""
    _after_all.append(function)


@atexit.register
def _close_all() -> None:
    for it in list(_open.values()):
        # a thread that hangs within it keeps its own; the rest of the program may still end
        if it.lock.acquire(timeout=_WAIT_S):
            try:
                it.close()
            finally:
                it.lock.release()
    for function in _after_all:
        quietly(function)


def quietly(function: Callable[..., None], *args: Any) -> None:
    """Call it, and go on whatever it raises: what fails while it is let go of is gone."""
    try:
        function(*args)
    except Exception as error:
        log.debug("while closing: %s", error)
