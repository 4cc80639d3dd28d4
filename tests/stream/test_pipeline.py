"""The pipeline: nothing lost, nothing out of order, and an end whatever happens in whichever stage."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgesod.errors import InputError, OutputError, SourceLost
from edgesod.stream import Sink, Source, camera, latencies, open_sink, open_source, run_pipeline
from edgesod.stream.camera import CameraSource
from edgesod.types import Frame, Result
from tests.helpers.video import FakeCapture, pictures, presentation_times, shared_clip, stamp_of, write_clip

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

    def write(self, image: NDArray[Any], frame: Frame) -> None:
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
        def write(self, image: NDArray[Any], frame: Frame) -> None:
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
        def write(self, image: NDArray[Any], frame: Frame) -> None:
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
    assert (report.interrupted, report.frames) == (True, 20)
    assert report.stages_ms["end_to_end"].n == 20
    assert [stamp_of(frame.image) for frame in open_source(tmp_path / "out.mp4")] == list(range(20))
    assert not [t.name for t in threading.enumerate() if t.name.startswith("edgesod-")]


def test_ctrl_c_ends_the_wait_for_a_camera_that_delivers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = FakeCapture(3, blocks=True)
    monkeypatch.setattr(camera.cv2, "VideoCapture", lambda *_: capture)
    main = threading.main_thread().ident
    assert main is not None

    class Interrupting(ListSink):
        def write(self, image: NDArray[Any], frame: Frame) -> None:
            super().write(image, frame)
            if not capture.unblock.is_set():
                signal.pthread_kill(main, signal.SIGINT)
                capture.unblock.set()

    report = run_pipeline(CameraSource(0), process, None, [Interrupting()], lost_after_s=1000)
    assert report.interrupted
    assert report.frames >= 1


# --- live


@pytest.fixture
def fake_camera(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeCapture], CameraSource]:
    monkeypatch.setattr(camera, "_PAUSE_S", 0.0)
    monkeypatch.setattr(camera, "_CLOSE_WAIT_S", 0.01)

    def plug(capture: FakeCapture) -> CameraSource:
        monkeypatch.setattr(camera.cv2, "VideoCapture", lambda *_: capture)
        return CameraSource(0)

    return plug


def test_a_live_source_keeps_the_newest_frame_and_counts_the_others(
    fake_camera: Callable[[FakeCapture], CameraSource],
) -> None:
    gate, sink = threading.Semaphore(1), ListSink()
    capture = FakeCapture(30, gate=gate)
    source = fake_camera(capture)

    def slow(frame: Frame) -> Result:
        # While the first frame is in hand, all the others come, the camera goes away, and the thread lets go of it.
        if frame.index == 0:
            gate.release(1000)
            assert capture.released.wait(LIMIT_S)
        return process(frame)

    with pytest.raises(SourceLost, match="after 30 frames"):
        within_limit(lambda: run_pipeline(source, slow, None, [sink]))
    assert sink.seen == [0, 29]


def test_drops_and_frame_age_are_reported(fake_camera: Callable[[FakeCapture], CameraSource]) -> None:
    gate = threading.Semaphore(1)
    delivered = threading.Event()

    class Counting(FakeCapture):
        num_read = 0

        def read(self) -> tuple[bool, Any]:
            if self.num_read == 10:
                delivered.set()
            self.num_read += 1
            return super().read()

    def slow(frame: Frame) -> Result:
        if frame.index == 0:
            gate.release(9)
            assert delivered.wait(LIMIT_S)
        return process(frame)

    def let_go(frame: Frame, result: Result) -> None:
        if frame.index > 0:
            gate.release(1000)

    source, sink = fake_camera(Counting(40, gate=gate)), ListSink()
    report = within_limit(lambda: run_pipeline(source, slow, None, [sink], on_frame=let_go, max_frames=2))
    assert sink.seen == [0, 9]
    assert report.frames == 2
    assert report.dropped >= 8
    assert report.stages_ms["frame_age"].n == 2
    assert report.stages_ms["end_to_end"].min >= report.stages_ms["frame_age"].min


def test_a_camera_that_blocks_for_good_is_lost(
    fake_camera: Callable[[FakeCapture], CameraSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgesod.stream.capture._JOIN_S", 0.05)
    capture, sink = FakeCapture(3, blocks=True), ListSink()
    source = fake_camera(capture)
    with pytest.raises(SourceLost, match=r"camera 0 delivered nothing for 0\.2 s"):
        run_pipeline(source, process, None, [sink], lost_after_s=0.2)
    assert sink.num_closed == 1
    source.close()
    assert capture.num_released == 0  # never under a read that has not come back
    capture.unblock.set()
    for thread in threading.enumerate():
        if thread.name == "edgesod-capture":
            thread.join(LIMIT_S)
    assert capture.num_released >= 1


def test_a_camera_that_never_delivers_is_lost(fake_camera: Callable[[FakeCapture], CameraSource]) -> None:
    with pytest.raises(SourceLost, match="never"):
        within_limit(lambda: run_pipeline(fake_camera(FakeCapture(0)), process, None, [ListSink()]))


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
