"""Throughput against latency: settings by hand, rates of engines that sleep, errors that come out."""

from __future__ import annotations

import threading
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
    assert 1.5 < two.fps / one.fps < 2.5
    assert two.latency.p50 < 1.5 * one.latency.p50
    for runtime in opened:
        with pytest.raises(BackendError, match="closed"):
            runtime(FRAME)


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
