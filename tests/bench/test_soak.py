"""A soak sees what drifts: against lines of known slope, and on runtimes that do drift."""

from __future__ import annotations

import statistics
import time
from itertools import count

import numpy as np
import pytest

from edgesod.bench.soak import SoakReport, Window, slope, soak
from edgesod.sensors import Sensors
from tests.helpers.sleeping import sleeping_runtime

FRAME = np.zeros((40, 60, 3), np.uint8)


def window(at_s: float, fps: float, rss_mb: float | None) -> Window:
    return Window(at_s, fps, 1.0, 1.0, rss_mb, {"cpu": 40 + at_s / 600}, {})


def test_slopes_are_those_of_a_straight_line_after_the_settling() -> None:
    generator = np.random.default_rng(0)
    at, values = np.arange(50.0), generator.normal(0, 1, 50) + np.arange(50.0) * 0.3
    values[:4] = 1e6  # the first tenth is not counted
    settled = at >= 0.1 * at[-1]
    assert slope(at.tolist(), values.tolist()) == pytest.approx(
        statistics.linear_regression(at[settled].tolist(), values[settled].tolist()).slope
    )
    assert slope([1.0], [2.0]) == 0


def test_what_drifts_is_said_and_what_is_steady_is_not() -> None:
    hour = [3600 * k / 20 for k in range(1, 21)]
    drifting = SoakReport(tuple(window(t, 30 - 3 * t / 3600, 400 + 20 * t / 3600) for t in hour), 1, False)
    found = drifting.as_dict()
    assert found["fps_per_hour"] == pytest.approx(-3)
    assert found["rss_mb_per_hour"] == pytest.approx(20)
    assert found["fps_drift"] == pytest.approx(-3 * 0.95 / statistics.fmean(w.fps for w in drifting.windows), abs=1e-4)
    assert found["highest_c"] == {"cpu": 46}
    assert len(drifting.warnings) == 2
    steady = SoakReport(tuple(window(t, 30, None) for t in hour), 1, False)
    assert steady.warnings == ()
    assert (steady.fps_drift, steady.rss_drift) == (0, 0)


def test_windows_count_every_frame_and_see_an_engine_that_slows_down() -> None:
    calls = count()

    def slower(image: np.ndarray) -> np.ndarray:
        time.sleep(0.002 + 0.0001 * next(calls))
        return image[:, :1] * 0

    reading = count()
    with sleeping_runtime(0, slower) as runtime:
        report = soak(
            runtime, FRAME, 0.01, read=lambda: Sensors({}, {}, {"package-0": 6.0 * next(reading)}, {}, time.monotonic())
        )
    assert report.frames == next(calls)
    assert report.fps_drift < -0.2
    assert report.windows[-1].p50_ms > 1.5 * report.windows[0].p50_ms
    assert all(w.power_w["package-0"] <= 6 / 0.06 for w in report.windows), "6 J within a window of 60 ms at least"
    assert not report.interrupted


def test_ctrl_c_ends_it_with_what_there_is() -> None:
    calls = count(1)

    def interrupted(image: np.ndarray) -> np.ndarray:
        if next(calls) == 6:
            raise KeyboardInterrupt
        time.sleep(0.001)
        return image[:, :1] * 0

    with sleeping_runtime(0, interrupted) as runtime:
        report = soak(runtime, FRAME, 60)
    assert report.interrupted
    assert report.frames == 5
