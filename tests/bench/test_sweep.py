"""Throughput against latency: settings by hand, rates of engines that sleep, errors that come out."""

from __future__ import annotations

import threading
import time
from itertools import count

import numpy as np
import pytest

from edgesod.bench.sweep import settings, sweep
from edgesod.errors import BackendError
from edgesod.runtime import Runtime
from tests.helpers.sleeping import sleeping_runtime

FRAME = np.zeros((40, 60, 3), np.uint8)


@pytest.mark.parametrize(
    ("cores", "expected"),
    [(1, [(1, 1)]), (2, [(1, 1), (1, 2), (2, 1)]), (4, [(1, 1), (1, 2), (1, 4), (2, 2), (4, 1)])],
)
def test_settings_never_ask_for_more_cores_than_there_are(cores: int, expected: list[tuple[int, int]]) -> None:
    assert settings(cores) == expected
    assert all(streams * threads <= 6 for streams, threads in settings(6))


def test_engines_side_by_side_add_up() -> None:
    asked: list[int] = []
    opened: list[Runtime] = []

    def open_runtime(threads: int) -> Runtime:
        asked.append(threads)
        opened.append(sleeping_runtime(0.02))
        return opened[-1]

    told = []
    one, two = sweep(open_runtime, FRAME, [(1, 3), (2, 1)], seconds=0.3, warm_up_s=0.0, on_point=told.append)
    assert asked == [3, 1, 1]
    assert told == [one, two]
    assert two.fps > 1.2 * one.fps
    assert one.latency.min >= 20
    assert two.latency.n >= 2
    for runtime in opened:
        with pytest.raises(BackendError, match="closed"):
            runtime(FRAME)


def test_ctrl_c_closes_no_engine_under_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Runtime] = []
    under_way, errors = threading.Event(), []

    def slow(image: np.ndarray) -> np.ndarray:
        under_way.set()
        time.sleep(0.01)
        if opened[0]._is_closed:
            errors.append("closed under a frame")
        return image[:, :1] * 0

    def open_runtime(_: int) -> Runtime:
        opened.append(sleeping_runtime(0, slow))
        return opened[-1]

    real = threading.Thread.join

    def join(self: threading.Thread, timeout: float | None = None) -> None:
        if self.name.startswith("edgesod-stream") and not interrupted:
            assert under_way.wait(20)
            interrupted.append(True)
            raise KeyboardInterrupt
        real(self, timeout)

    interrupted: list[bool] = []
    monkeypatch.setattr(threading.Thread, "join", join)
    with pytest.raises(KeyboardInterrupt):
        sweep(open_runtime, FRAME, [(1, 1), (2, 1)], seconds=1000)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("edgesod-stream")]
    assert len(opened) == 1
    assert errors == []


def test_an_error_of_one_stream_ends_all_and_reaches_the_caller() -> None:
    calls = count()

    def fail(image: np.ndarray) -> np.ndarray:
        if next(calls) >= 3:
            raise BackendError("the engine broke")
        return image[:, :1] * 0

    before = threading.active_count()
    with pytest.raises(BackendError, match="broke"):
        sweep(lambda _: sleeping_runtime(0.001, fail), FRAME, [(2, 1)], seconds=0.2, warm_up_s=0.05)
    assert threading.active_count() == before
