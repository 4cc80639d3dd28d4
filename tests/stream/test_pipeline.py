"""The pipeline: nothing lost, nothing out of order, and an end whatever happens in whichever stage."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgesod.errors import DeviceError, InputError, OutputError, SourceLost
from edgesod.stream import (
    CallbackSink,
    LiveStatistics,
    Sink,
    Source,
    latencies,
    open_sink,
    open_source,
    run_pipeline,
    stream_results,
)
from edgesod.stream.sinks import NullSink
from edgesod.types import Frame, Result
from tests.helpers.video import pictures, presentation_times, shared_clip, stamp_of, write_clip

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


# --- ends


@pytest.mark.parametrize("num", [0, 1, 50])
def test_an_error_in_the_source_comes_after_every_frame_before_it(num: int) -> None:
    sink, error = ListSink(), InputError("broken")
    with pytest.raises(InputError) as caught:
        within_limit(lambda: run_pipeline(ListSource(num, error), process, None, [sink]))
    assert caught.value is error
    assert sink.seen == list(range(num))
    assert (sink.num_closed, sink.num_aborted) == (0, 1)


@pytest.mark.parametrize("at", [0, 30])
@pytest.mark.parametrize("stage", ["process", "on_frame", "render"])
def test_an_error_in_a_callable_reaches_the_caller_as_it_is(stage: str, at: int) -> None:
    error = ZeroDivisionError("mine")

    def bad(frame: Frame, *_: Any) -> Any:
        if frame.index == at:
            raise error
        return frame.image if stage == "render" else process(frame)

    source, sink = ListSource(10**9), ListSink()
    calls = {"process": process, "render": None, "on_frame": None, stage: bad}
    with pytest.raises(ZeroDivisionError) as caught:
        within_limit(
            lambda: run_pipeline(source, calls["process"], calls["render"], [sink], on_frame=calls["on_frame"])  # type: ignore[arg-type]
        )
    assert caught.value is error
    assert sink.seen == list(range(at + (stage == "on_frame")))
    assert (sink.num_closed, sink.num_aborted) == (0, 1)
    assert source.num_closed >= 1


@pytest.mark.parametrize("at", [0, 30])
def test_an_error_in_a_sink_throws_every_output_away(at: int) -> None:
    good, bad = ListSink(), ListSink(at, OutputError("full"))
    with pytest.raises(OutputError, match="full"):
        within_limit(lambda: run_pipeline(ListSource(10**9), process, None, [good, bad]))
    assert (good.num_closed, good.num_aborted, bad.num_closed, bad.num_aborted) == (0, 1, 0, 1)
    assert good.seen == list(range(at + 1))


def test_an_error_in_a_sink_ends_the_wait_for_a_slow_camera() -> None:
    class Slow(ListSource):
        is_live = True

        def __iter__(self) -> Iterator[Frame]:
            yield from super().__iter__()
            released.wait(LIMIT_S)

    released = threading.Event()

    class Bad(ListSink):
        def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
            released.set()
            raise OutputError("full")

    with pytest.raises(OutputError, match="full"):
        within_limit(lambda: run_pipeline(Slow(1), process, None, [Bad()], lost_after_s=1000))


def test_an_error_while_a_sink_finishes_reaches_the_caller_and_the_others_are_finished() -> None:
    bad, good = ListSink(on_close=OutputError("full at the end")), ListSink()
    with pytest.raises(OutputError, match="at the end"):
        within_limit(lambda: run_pipeline(ListSource(5), process, None, [bad, good]))
    assert good.num_closed == 1


@pytest.mark.parametrize("slow", ["process", "write"])
def test_every_stage_may_fail_at_once(slow: str) -> None:
    pause = threading.Event()

    def failing(frame: Frame) -> Result:
        if slow == "process":
            pause.wait(0.05)
        raise ValueError("process")

    class Sluggish(ListSink):
        def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
            pause.wait(0.05)
            raise OutputError("sink")

    with pytest.raises((ValueError, InputError)):
        within_limit(lambda: run_pipeline(ListSource(1, InputError("source")), failing, None, [Sluggish()]))


def test_a_damaged_video_leaves_no_output_that_looks_whole(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.mp4", pictures(60))
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 2 // 3])
    with pytest.raises(InputError, match="damaged"):
        run_pipeline(open_source(clip), process, None, [open_sink(str(tmp_path / "out.mp4"), fps=25)])
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_stop_ends_it_from_another_thread() -> None:
    stop, sink = threading.Event(), ListSink()

    def on_frame(frame: Frame, result: Result) -> None:
        if frame.index == 9:
            threading.Thread(target=stop.set).start()

    report = within_limit(lambda: run_pipeline(ListSource(10**9), process, None, [sink], on_frame=on_frame, stop=stop))
    assert report.frames == len(sink.seen) >= 10
    assert not report.interrupted


def test_ctrl_c_keeps_the_numbers_and_a_playable_file(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.mp4", pictures(60))

    def on_frame(frame: Frame, result: Result) -> None:
        if frame.index == 19:
            signal.raise_signal(signal.SIGINT)

    sink = open_sink(str(tmp_path / "out.mp4"), fps=25)
    report = run_pipeline(open_source(clip), process, None, [sink], on_frame=on_frame)
    assert report.interrupted
    assert 20 <= report.frames < 60
    assert report.stages_ms["end_to_end"].n == report.frames
    assert [stamp_of(frame.image) for frame in open_source(tmp_path / "out.mp4")] == list(range(report.frames))
    assert not [t.name for t in threading.enumerate() if t.name.startswith("edgesod-")]


def test_ctrl_c_ends_the_wait_for_a_source_that_delivers_nothing() -> None:
    source = LiveSource(3, blocks=True)
    main = threading.main_thread().ident
    assert main is not None

    class Interrupting(ListSink):
        def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
            super().write(image, frame, result)
            if not source.unblock.is_set():
                signal.pthread_kill(main, signal.SIGINT)
                source.unblock.set()

    report = run_pipeline(source, process, None, [Interrupting()], lost_after_s=1000)
    assert report.interrupted
    assert report.frames >= 1


# --- live


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
    assert report.frame_age_ms["sink"].p99 < 2 * report.stages_ms["inference"].p50


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
    _join_stragglers()


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


# --- what does not come back


@pytest.mark.parametrize(
    ("stage", "expected", "named"),
    [
        ("source", InputError, "list has not come back from reading"),
        ("process", DeviceError, "the engine has not come back from frame 2 of list"),
        ("render", OutputError, "rendering frame 2 has not come back"),
        ("write", OutputError, "list, given frame 2, has not come back"),
        ("close", OutputError, "list, being finished, has not come back"),
    ],
)
def test_a_stage_that_does_not_come_back_is_named_and_the_other_sinks_are_finished(
    monkeypatch: pytest.MonkeyPatch, stage: str, expected: type[Exception], named: str
) -> None:
    monkeypatch.setattr("edgesod.stream.pipeline._GRACE_S", 0.1)
    monkeypatch.setattr("edgesod.stream.pipeline._FINISH_S", 0.1)
    release = threading.Event()

    def stick(at: str, index: int) -> None:
        if stage == at and index == 2:
            release.wait(LIMIT_S)

    class Sticky(ListSource):
        def __iter__(self) -> Iterator[Frame]:
            for frame in super().__iter__():
                stick("source", frame.index)
                yield frame

    class StickySink(ListSink):
        def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
            stick("write", frame.index)
            super().write(image, frame, result)

        def close(self) -> None:
            stick("close", 2)
            super().close()

    def inferred(frame: Frame) -> Result:
        stick("process", frame.index)
        return process(frame)

    def rendered(frame: Frame, _: Result) -> NDArray[np.uint8]:
        stick("render", frame.index)
        return frame.image

    sticky, other = StickySink(), ListSink()
    begun_s = time.perf_counter()
    with pytest.raises(expected, match=named):
        run_pipeline(Sticky(4), inferred, rendered, [sticky, other], stalled_after_s=0.3)
    assert time.perf_counter() - begun_s < LIMIT_S / 2
    assert other.num_closed + other.num_aborted == 1
    release.set()
    _join_stragglers()


def _join_stragglers() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("edgesod-"):
            thread.join(LIMIT_S)
            assert not thread.is_alive()


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
