"""Ending soon when asked to, whatever is going on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from edgesod.runtime import Runtime

T = TypeVar("T")

_LOOK_S = 0.2


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Within the block, have the first SIGTERM end things as Ctrl-C does, and pass over further ones, which would only disturb."""

    def interrupt(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def interruptibly(function: Callable[[], T]) -> T:
    """Return or raise what ``function`` does in a thread, so that this one hears signals while a driver or a server is waited for.

    Interrupted, the thread is left behind; the program ends without it (:func:`edgesod.cli.app.main`).
    """
    outcome: list[tuple[T | None, BaseException | None]] = []
    done = threading.Event()

    def run() -> None:
        try:
            outcome.append((function(), None))
        except BaseException as error:
            outcome.append((None, error))
        done.set()

    threading.Thread(target=run, name="edgesod-opening", daemon=True).start()
    while not done.wait(_LOOK_S):
        pass
    value, error = outcome[0]
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


def close_unless_stuck(runtime: Runtime) -> None:
    """Close a runtime; not one whose thread was left behind in a frame, which holds it until the program ends."""
    if not any(thread.name == "edgesod-inference" for thread in threading.enumerate()):
        runtime.close()
