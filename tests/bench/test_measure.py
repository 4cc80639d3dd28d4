"""What is measured: percentiles against NumPy and the standard library, rules, stages, sensors."""

from __future__ import annotations

import statistics
from itertools import count

import numpy as np
import pytest

from edgesod.bench import bench
from edgesod.bench.environment import environment, resident_mb
from edgesod.bench.sensor_log import SensorLog
from edgesod.manifest import this_device
from edgesod.sensors import Sensors
from edgesod.timing import LatencySummary
from tests.helpers.sleeping import sleeping_runtime

FRAME = np.zeros((40, 60, 3), np.uint8)


def test_percentiles_are_numpys_and_the_rest_is_the_standard_librarys() -> None:
    values = np.random.default_rng(0).gamma(9, 4, 997).tolist()
    summary = LatencySummary.from_ms(values)
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)):
        assert getattr(summary, name) == pytest.approx(np.quantile(values, share), abs=1e-4)
    assert (summary.n, summary.min, summary.max) == (
        997,
        pytest.approx(min(values), abs=1e-4),
        pytest.approx(max(values), abs=1e-4),
    )
    assert summary.p50 == pytest.approx(statistics.median(values), abs=1e-4)
    assert summary.cv == pytest.approx(statistics.pstdev(values) / statistics.fmean(values), abs=1e-4)


def test_least_iterations_and_least_time_are_both_kept_and_the_stages_add_up() -> None:
    with sleeping_runtime(0.004) as runtime:
        by_number = bench(runtime, FRAME, warm_up_ms=0, iterations=12, duration_s=0)
        by_time = bench(runtime, FRAME, warm_up_ms=0, iterations=1, duration_s=0.1)
    assert by_number.latency.n == len(by_number.at_s) == 12
    assert by_time.at_s[-1] >= 0.1 > by_time.at_s[-2]
    parts = [by_number.samples_ms[name] for name in ("preprocess", "inference", "postprocess", "mask")]
    for whole, *some in zip(by_number.samples_ms["end_to_end"], *parts, strict=True):
        assert 0 < sum(some) <= whole + 1e-6  # what is between the stages is in the whole alone
    assert by_number.latency.min >= 4
    assert by_number.throughput_fps == pytest.approx(1e3 / statistics.fmean(by_number.samples_ms["end_to_end"]), rel=1e-3)
    assert np.diff(by_number.at_s).min() > 0


def test_an_unsteady_engine_is_warned_of() -> None:
    import time

    turn = count()

    def hiccup(image: np.ndarray) -> np.ndarray:
        time.sleep(0.02 if next(turn) % 2 else 0)
        return image[:, :1] * 0

    with sleeping_runtime(0, hiccup) as runtime:
        report = bench(runtime, FRAME, warm_up_ms=0, iterations=10, duration_s=0)
    (warning,) = report.warnings
    assert "varies by" in warning


def test_energy_a_frame_comes_from_counters_and_from_power() -> None:
    readings = iter(
        [
            Sensors({"cpu": 50.0}, {"VDD_IN": 8.0}, {"package-0": 100.0}, {}, 10.0),
            Sensors({"cpu": 61.0}, {"VDD_IN": 12.0}, {"package-0": 140.0}, {}, 14.0),
        ]
    )
    with SensorLog(lambda: next(readings), every_s=60) as log:
        pass
    report = log.report(frames=20)
    assert report["temperatures_c"] == {"cpu": {"first": 50, "last": 61, "highest": 61}}
    assert report["power_w"] == pytest.approx({"VDD_IN": 10, "package-0": 10})
    assert report["energy_j_per_frame"] == pytest.approx({"VDD_IN": 10 * 4 / 20, "package-0": 40 / 20})


def test_sensors_are_read_while_it_lasts() -> None:
    import time

    reading = count()
    with SensorLog(lambda: Sensors({"cpu": float(next(reading))}, read_at_s=time.monotonic()), every_s=0.01) as log:
        time.sleep(0.15)
    seen = log.report(1)["temperatures_c"]["cpu"]
    assert seen["highest"] >= 3
    stopped = next(reading)
    time.sleep(0.05)
    assert next(reading) == stopped + 1, "the thread goes on"


def test_the_environment_is_this_machines() -> None:
    import platform

    found = environment(this_device())
    assert found["python"] == platform.python_version()
    assert found["cores"] >= 1
    assert platform.node() not in (str(value) for value in found.values())
    before = resident_mb()
    if before is None:
        pytest.skip("this system does not tell a process's memory")
    held = np.ones(4_000_000)
    assert resident_mb() - before == pytest.approx(held.nbytes / 1e6, abs=8)
