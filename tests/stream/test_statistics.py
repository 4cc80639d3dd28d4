"""What a run says about itself while it goes on."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest

from edgesod.stream import LiveStatistics, latencies
from tests.helpers.pipeline import ListSource


def test_a_snapshot_is_json_and_tells_of_the_last_hundred_frames() -> None:
    statistics = LiveStatistics()
    assert json.loads(json.dumps(statistics.snapshot()))["state"] == "starting"
    source = ListSource(0)
    source.num_reconnects = 2
    statistics.begin([source])
    for k in range(300):
        statistics.add_stages({"inference": float(k), "capture": 1.0})
        statistics.add_age("sink", k / 1e3)
        statistics.add_done((4, 6))
    statistics.add_dropped(5)
    statistics.add_late()
    seen = json.loads(json.dumps(statistics.snapshot()))
    assert (seen["state"], seen["source"], seen["size_hw"]) == ("running", "list", [4, 6])
    assert (seen["frames"], seen["dropped"], seen["late"], seen["reconnects"]) == (300, 5, 1, 2)
    assert list(seen["stages_ms"]) == ["capture", "inference"]
    last = np.arange(200, 300)
    assert seen["stages_ms"]["inference"] == pytest.approx({"p50": np.median(last), "p95": np.percentile(last, 95)})
    assert seen["frame_age_ms"]["sink"]["newest"] == pytest.approx(299)
    source.state = "reconnecting"
    assert statistics.snapshot()["state"] == "reconnecting"
    statistics.end()
    ended = statistics.snapshot()
    time.sleep(0.02)
    assert (ended["state"], statistics.snapshot()["uptime_s"]) == ("ended", ended["uptime_s"])


def test_frames_a_second_are_those_of_the_last_two(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(time, "perf_counter", lambda: now_s)
    statistics = LiveStatistics()
    statistics.begin([])
    for _ in range(100):
        now_s += 0.1
        statistics.add_done((4, 4))
    assert statistics.snapshot()["fps"] == pytest.approx(10, rel=0.06)
    now_s += 1
    assert statistics.snapshot()["fps"] == pytest.approx(5, rel=0.06)
    now_s += 2
    assert statistics.snapshot()["fps"] == 0


def test_it_may_be_read_while_it_is_fed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latencies, "LIMIT", 64)
    statistics = LiveStatistics()
    stop = threading.Event()

    def feed() -> None:
        k = 0
        while not stop.is_set():
            statistics.add_stages({f"stage {k % 7}": 1.0})
            statistics.add_age(f"age {k % 5}", 1.0)
            statistics.add_done((1, 1))
            k += 1

    threads = [threading.Thread(target=feed) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(50):
            assert all(brief["p50"] == 1.0 for brief in statistics.snapshot()["stages_ms"].values())
    finally:
        stop.set()
        for thread in threads:
            thread.join()
