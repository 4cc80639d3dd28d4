"""The pipeline behind a live source: the newest frame counts, and every other one is accounted for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgesod.errors import SourceLost
from edgesod.stream import LiveStatistics, run_pipeline
from edgesod.types import Frame, Result
from tests.helpers.pipeline import LIMIT_S, ListSink, ListSource, LiveSource, join_stragglers, process, within_limit


def test_a_live_source_keeps_the_newest_frame_and_counts_the_others() -> None:
    gate, sink = threading.Semaphore(1), ListSink()
    source = LiveSource(30, gate=gate)

    def slow(frame: Frame) -> Result:
        # While the first frame is in hand, all the others come, and the source ends.
        if frame.index == 0:
            gate.release(1000)
            assert source.ended.wait(LIMIT_S)
        return process(frame)

    report = within_limit(lambda: run_pipeline(source, slow, None, [sink]))
    assert sink.seen[-1] == 29
    assert (report.frames + report.late, report.dropped) == (2, 28)


def test_slow_sinks_get_the_newest_result_of_a_live_source_and_the_others_are_counted_late() -> None:
    gate, first_written = threading.Semaphore(1), threading.Event()
    source = LiveSource(5, gate=gate)

    class Slow(ListSink):
        def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
            first_written.set()
            super().write(image, frame, result)
            if frame.index == 0:
                assert source.ended.wait(LIMIT_S)
                assert is_last_done.wait(LIMIT_S)

    is_last_done = threading.Event()

    def let_go(frame: Frame, _: Result) -> None:
        if frame.index == 0:
            assert first_written.wait(LIMIT_S)
        gate.release()
        if frame.index == 4:
            is_last_done.set()

    sink = Slow()
    report = within_limit(lambda: run_pipeline(source, process, None, [sink], on_frame=let_go))
    assert sink.seen == [0, 4]
    assert (report.frames, report.dropped, report.late) == (2, 0, 3)


def test_at_sixty_frames_and_a_slow_engine_ages_stay_below_two_inferences_and_every_frame_is_accounted_for() -> None:
    period_s, inference_s, num = 1 / 60, 0.1, 150

    class Camera(ListSource):
        is_live = True

        def __iter__(self) -> Iterator[Frame]:
            begun_s = time.perf_counter()
            for k in range(self.num):
                time.sleep(max(0.0, begun_s + k * period_s - time.perf_counter()))
                yield Frame(np.zeros((4, 4, 3), np.uint8), k, k * period_s, "camera", time.perf_counter())

    def slow(frame: Frame) -> Result:
        begun_s = time.perf_counter()
        time.sleep(inference_s)
        return Result(np.zeros((2, 2), np.float32), (4, 4), times_ms={"inference": (time.perf_counter() - begun_s) * 1e3})

    report = run_pipeline(Camera(num), slow, None, [ListSink()])
    assert report.frames + report.dropped + report.late == num
    assert report.dropped > num / 2
    assert report.frame_age_ms["sink"].p90 < 2 * report.stages_ms["inference"].p50


def test_frame_age_is_measured_at_every_hand_over() -> None:
    report = run_pipeline(ListSource(20), process, None, [ListSink()])
    ages_ms = report.frame_age_ms
    assert {name: age.n for name, age in ages_ms.items()} == {"inference": 20, "sink": 20, "done": 20}
    assert ages_ms["done"].min >= ages_ms["sink"].min >= ages_ms["inference"].min > 0


def test_a_live_source_that_blocks_for_good_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgesod.stream.pipeline._GRACE_S", 0.05)
    source, sink = LiveSource(3, blocks=True), ListSink()
    with pytest.raises(SourceLost, match=r"list delivered nothing for 0\.2 s"):
        run_pipeline(source, process, None, [sink], lost_after_s=0.2)
    assert (sink.num_closed, sink.num_aborted) == (1, 0)
    source.unblock.set()
    join_stragglers()


def test_a_live_source_that_is_reconnecting_may_take_its_time() -> None:
    source = LiveSource(3, blocks=True)
    source.state = "reconnecting"
    statistics = LiveStatistics()
    states: list[str] = []

    def wait() -> None:
        time.sleep(0.5)
        states.append(statistics.snapshot()["state"])
        source.unblock.set()

    threading.Thread(target=wait).start()
    report = run_pipeline(source, process, None, [], lost_after_s=0.1, statistics=statistics)
    assert report.frames + report.dropped + report.late == 3
    assert (states, statistics.snapshot()["state"]) == (["reconnecting"], "ended")
