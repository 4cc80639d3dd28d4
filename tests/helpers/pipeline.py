"""Sources and sinks for tests of the pipeline, and a limit on how long it may take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesod.stream import Sink, Source
from edgesod.types import Frame, Result

LIMIT_S = 20


class ListSource(Source):
    """Yields ``num`` small frames, then raises ``error`` if there is one."""

    name = "list"

    def __init__(self, num: int, error: BaseException | None = None) -> None:
        self.num, self.error, self.num_closed = num, error, 0

    def __iter__(self) -> Iterator[Frame]:
        for k in range(self.num):
            yield Frame(np.full((4, 4, 3), k % 256, np.uint8), k, k / 25, "list", time.perf_counter())
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.num_closed += 1


class ListSink(Sink):
    """Keeps the indices it is given; raises ``error`` at picture ``at``."""

    name = "list"

    def __init__(self, at: int = -1, error: BaseException | None = None, on_close: Exception | None = None) -> None:
        self.seen: list[int] = []
        self.at, self.error, self.on_close = at, error, on_close
        self.num_closed = self.num_aborted = 0

    def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
        if len(self.seen) == self.at and self.error is not None:
            raise self.error
        self.seen.append(frame.index)

    def close(self) -> None:
        self.num_closed += 1
        if self.on_close:
            raise self.on_close

    def abort(self) -> None:
        self.num_aborted += 1


def process(frame: Frame) -> Result:
    """Compute nothing, in times that are known."""
    times_ms = {"preprocess": 0.5, "inference": 2.0, "postprocess": 0.25}
    return Result(np.zeros((2, 2), np.float32), (4, 4), times_ms=times_ms, frame=frame)


def within_limit(run: Callable[[], Any]) -> Any:
    """Return or raise what ``run`` does in a thread of its own; fail when it does not come back, or leaves threads."""
    outcome: list[Any] = []

    def attempt() -> None:
        try:
            outcome.append((run(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    assert not thread.is_alive(), "the pipeline hangs"
    assert not [t.name for t in threading.enumerate() if t.name.startswith("edgesod-")]
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


class LiveSource(ListSource):
    """A camera's stand-in: waits for ``gate`` before each frame, and blocks after the last, or ends."""

    is_live = True

    def __init__(self, num: int, *, gate: threading.Semaphore | None = None, blocks: bool = False) -> None:
        super().__init__(num)
        self.gate, self.blocks = gate, blocks
        self.unblock, self.ended = threading.Event(), threading.Event()
        self.num_given = 0

    def __iter__(self) -> Iterator[Frame]:
        for frame in super().__iter__():
            if self.gate is not None:
                self.gate.acquire()
            self.num_given += 1
            yield frame
        if self.blocks:
            self.unblock.wait(LIMIT_S)

    def close(self) -> None:
        super().close()
        self.ended.set()


def join_stragglers() -> None:
    """Wait for threads that were given up on."""
    for thread in threading.enumerate():
        if thread.name.startswith("edgesod-"):
            thread.join(LIMIT_S)
            assert not thread.is_alive()
