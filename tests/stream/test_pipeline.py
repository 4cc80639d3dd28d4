"""The pipeline: nothing lost, nothing out of order, from one source or several, and nothing held on to."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgesod.errors import InputError
from edgesod.stream import CallbackSink, latencies, open_sink, open_source, run_pipeline, stream_results
from edgesod.stream.sinks.null import NullSink
from edgesod.types import Frame, Result
from tests.helpers.pipeline import LIMIT_S, ListSink, ListSource, process, within_limit
from tests.helpers.video import pictures, presentation_times, shared_clip, stamp_of, write_clip

# --- every frame, in order


def test_every_frame_goes_through_once_and_in_order() -> None:
    source, first, second, counted = ListSource(300), ListSink(), ListSink(), []
    report = within_limit(
        lambda: run_pipeline(
            source, process, lambda frame, _: frame.image, [first, second], on_frame=lambda f, r: counted.append(f.index)
        )
    )
    assert first.seen == second.seen == counted == list(range(300))
    assert (report.frames, report.dropped, report.interrupted) == (300, 0, False)
    assert (first.num_closed, second.num_closed, first.num_aborted) == (1, 1, 0)
    assert source.num_closed >= 1
    assert report.fps == pytest.approx(300 / report.seconds)


def test_the_report_names_every_stage() -> None:
    report = run_pipeline(ListSource(20), process, lambda frame, _: frame.image, [ListSink()])
    expected = ["capture", "preprocess", "inference", "postprocess", "render", "sink", "end_to_end"]
    assert list(report.stages_ms) == expected
    assert {summary.n for summary in report.stages_ms.values()} == {20}
    assert report.stages_ms["inference"].p50 == 2.0
    assert report.as_dict()["stages_ms"]["preprocess"]["mean"] == 0.5
    plain = run_pipeline(ListSource(3), lambda f: Result(np.zeros((1, 1), np.float32), (4, 4)), None, [])
    assert list(plain.stages_ms) == ["capture", "inference", "sink", "end_to_end"]


def test_nothing_comes_from_an_empty_source() -> None:
    report = within_limit(lambda: run_pipeline(ListSource(0), process, None, [ListSink()]))
    assert (report.frames, report.stages_ms) == (0, {})


@pytest.mark.parametrize("max_frames", [0, 1, 7])
def test_max_frames_ends_it(max_frames: int) -> None:
    sink = ListSink()
    report = within_limit(lambda: run_pipeline(ListSource(10**9), process, None, [sink], max_frames=max_frames))
    assert report.frames == max_frames
    assert sink.seen == list(range(max_frames))


def test_a_video_keeps_frames_order_and_times(tmp_path: Path) -> None:
    times_s = [0.04 * k + (0.013 if k % 3 == 0 else 0) - 0.013 for k in range(60)]
    clip = write_clip(tmp_path / "in.mp4", pictures(60), times_s=times_s)
    source = open_source(clip)
    report = run_pipeline(source, process, None, [open_sink(str(tmp_path / "out.mp4"), fps=source.fps)])
    assert report.frames == 60
    assert [stamp_of(frame.image) for frame in open_source(tmp_path / "out.mp4")] == list(range(60))
    assert presentation_times(tmp_path / "out.mp4") == pytest.approx([t - times_s[0] for t in times_s], abs=2.1 / 90_000)


def test_a_real_clip_goes_through(tmp_path: Path) -> None:
    source = open_source(shared_clip("libby_854x480.mp4"))
    report = run_pipeline(source, process, None, [open_sink(str(tmp_path / "out.mp4"), fps=source.fps)])
    assert report.frames == source.num_frames == len(presentation_times(tmp_path / "out.mp4"))


# --- several sources


def test_several_sources_take_turns_and_every_frame_says_whose_it_is() -> None:
    seen: list[tuple[int, int]] = []
    sink = CallbackSink(lambda frame, _: seen.append((frame.source, frame.index)))
    report = within_limit(lambda: run_pipeline([ListSource(40), ListSource(40), ListSource(10)], process, None, [sink]))
    assert report.frames == 90
    for number, num in enumerate((40, 40, 10)):
        assert [index for source, index in seen if source == number] == list(range(num))
    # while all three deliver, none gets ahead of another by more than what waits between the threads
    for k in range(1, 25):
        counts = [sum(source == number for source, _ in seen[:k]) for number in range(3)]
        assert max(counts) - min(counts) <= 4


def test_a_source_that_floods_leaves_the_others_their_turns() -> None:
    class Flood(ListSource):
        is_live = True

    shares = [0, 0]

    def count(frame: Frame, _: Result) -> None:
        shares[frame.source] += 1

    def slow(frame: Frame) -> Result:
        time.sleep(0.002)
        return process(frame)

    within_limit(lambda: run_pipeline([Flood(10**9), ListSource(50)], slow, None, [], on_frame=count, max_frames=60))
    assert min(shares) >= 25


def test_an_error_of_one_of_several_sources_ends_the_run() -> None:
    endless, broken = ListSource(10**9), ListSource(5, InputError("broken"))
    with pytest.raises(InputError, match="broken"):
        within_limit(lambda: run_pipeline([endless, broken], process, None, [ListSink()]))
    assert endless.num_closed >= 1


# --- pictures nobody looks at


def test_nothing_is_rendered_where_no_sink_wants_a_picture() -> None:
    def render(frame: Frame, result: Result) -> NDArray[np.uint8]:
        raise AssertionError("rendered for nobody")

    given: list[Result | None] = []
    report = run_pipeline(ListSource(3), process, render, [CallbackSink(lambda _, result: given.append(result)), NullSink()])
    assert report.frames == 3
    assert [result is not None and result.size_hw for result in given] == [(4, 4)] * 3
    with pytest.raises(AssertionError, match="for nobody"):
        run_pipeline(ListSource(3), process, render, [NullSink(), ListSink()])


# --- as an iterator


def test_stream_results_gives_every_frame_of_a_file_in_order_and_computes_ahead() -> None:
    computed: list[int] = []

    def counting(frame: Frame) -> Result:
        computed.append(frame.index)
        return process(frame)

    results = stream_results(ListSource(20), counting)
    first = next(results)
    deadline_s = time.perf_counter() + LIMIT_S
    while len(computed) < 3 and time.perf_counter() < deadline_s:
        time.sleep(0.01)
    assert len(computed) >= 3
    indices = [result.frame.index for result in (first, *results) if result.frame]
    assert indices == list(range(20))


@pytest.mark.parametrize("stage", ["source", "process"])
def test_stream_results_raises_what_a_stage_raised_after_every_result_before_it(stage: str) -> None:
    def failing(frame: Frame) -> Result:
        if stage == "process" and frame.index == 5:
            raise InputError("broken")
        return process(frame)

    source = ListSource(5, InputError("broken")) if stage == "source" else ListSource(20)
    results = stream_results(source, failing)
    assert [result.frame and result.frame.index for result in islice(results, 5)] == list(range(5))
    with pytest.raises(InputError, match="broken"):
        next(results)


def test_leaving_stream_results_early_ends_its_threads() -> None:
    source = ListSource(10**9)
    for _ in stream_results(source, process):
        break
    gc.collect()
    assert source.num_closed >= 1
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("edgesod-")]


# --- for months


def test_latencies_stay_bounded_and_follow_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latencies, "LIMIT", 100)
    kept = latencies.Latencies()
    assert kept.summary() is None
    for value in range(1234):
        kept.add(float(value))
    summary = kept.summary()
    assert summary is not None
    assert (summary.n, summary.min, summary.max) == (100, 1134, 1233)


def test_frames_are_not_held_on_to() -> None:
    alive: set[int] = set()
    most = 0

    class Tracked(np.ndarray):
        def __del__(self) -> None:
            alive.discard(id(self))

    class Tracking(ListSource):
        def __iter__(self) -> Iterator[Frame]:
            for frame in super().__iter__():
                image = frame.image.view(Tracked)
                alive.add(id(image))
                yield Frame(image, frame.index, frame.time_s, "t", frame.captured_at_s)
                del image

    def count(frame: Frame, result: Result) -> None:
        nonlocal most
        most = max(most, len(alive))

    run_pipeline(Tracking(500), process, None, [ListSink()], on_frame=count)
    gc.collect()
    assert most <= 12
    assert len(alive) <= 1
