"""The pipeline ends whatever happens in whichever stage, and says what it was."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgesod.errors import DeviceError, InputError, OutputError
from edgesod.stream import open_sink, open_source, run_pipeline
from edgesod.types import Frame, Result
from tests.helpers.pipeline import LIMIT_S, ListSink, ListSource, LiveSource, join_stragglers, process, within_limit
from tests.helpers.video import pictures, stamp_of, write_clip

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
        if frame.index >= 19:
            time.sleep(0.05)  # or the clip is through before the main thread gets to look at the signal

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
    join_stragglers()
