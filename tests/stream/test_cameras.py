"""A camera that blocks, returns nothing, changes size or disappears ends as docs/live.md says."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgesod.errors import InputError, SourceLost, UsageError
from edgesod.stream import open_sink, open_source, run_pipeline
from edgesod.stream.sources.camera import CameraSource
from edgesod.stream.sources.options import SourceOptions, parse_options
from edgesod.types import Frame, Result
from tests.helpers.camera import StandInCamera, plug_in
from tests.helpers.video import gather, pictures, presentation_times, stamp_of

QUICK = SourceOptions(reconnect_s=0.3, retry_s=0.02)


def process(frame: Frame) -> Result:
    return Result(np.zeros((2, 2), np.float32), (frame.image.shape[0], frame.image.shape[1]), frame=frame)


def test_one_that_blocks_is_lost_though_its_read_never_comes_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    camera = plug_in(monkeypatch, StandInCamera([[*pictures(5), "block"]], seconds_per_read=0.02))
    out = tmp_path / "out.mp4"
    source = CameraSource(0, QUICK)
    try:
        with pytest.raises(SourceLost, match=r"camera 0 delivered nothing for 1 s") as caught:
            run_pipeline(source, process, None, [open_sink(str(out), fps=30)], lost_after_s=1)
    finally:
        camera.unblock.set()
    assert caught.value.exit_code == 6
    assert len(presentation_times(out)) >= 2  # what was recorded is kept, and playable


def test_one_that_returns_nothing_is_opened_again_and_then_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = plug_in(monkeypatch, StandInCamera([pictures(5), [], [], *[[]] * 1000]))
    with open_source("0", QUICK) as source:
        frames: list[Frame] = []
        with pytest.raises(SourceLost, match=r"after 5 frames; it did not come back within 0\.3 s") as caught:
            gather(source, frames)
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert (caught.value.exit_code, source.num_reconnects) == (6, 0)
    assert "reconnect=inf" in caught.value.hint
    assert camera.num_open == 0


def test_one_that_disappears_and_comes_back_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = plug_in(monkeypatch, StandInCamera([pictures(5), None, None, pictures(7), None, pictures(3)]))
    frames: list[Frame] = []
    with open_source("0", QUICK) as source:
        assert source.state == "open"
        with pytest.raises(SourceLost):
            gather(source, frames)
        assert source.num_reconnects == 2
        assert source.state == "reconnecting"
    assert source.state == "closed"
    assert [frame.index for frame in frames] == list(range(15))
    times_s = [frame.time_s for frame in frames]
    assert times_s == sorted(times_s)
    assert times_s[5] - times_s[4] > 0.02 / 2  # a gap is a gap
    assert camera.num_open == 0


def test_one_failing_read_is_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = pictures(3)
    plug_in(monkeypatch, StandInCamera([[first, None, None, second, None, third]]))
    with open_source("0", SourceOptions(reconnect_s=0)) as source:
        frames: list[Frame] = []
        with pytest.raises(SourceLost, match="after 3 frames"):
            gather(source, frames)
    assert [stamp_of(frame.image) for frame in frames] == [0, 1, 2]


def test_one_that_changes_size_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    steps = [*pictures(6, (72, 128)), *pictures(6, (90, 96))]
    plug_in(monkeypatch, StandInCamera([steps], seconds_per_read=0.02))
    source, sizes = open_source("0", SourceOptions(reconnect_s=0)), []
    out = tmp_path / "out.mp4"
    with pytest.raises(SourceLost):
        run_pipeline(
            source, process, None, [open_sink(str(out), fps=30)], on_frame=lambda f, _: sizes.append(f.image.shape[:2])
        )
    assert set(sizes) == {(72, 128), (90, 96)}
    with open_source(out) as recorded:
        assert {frame.image.shape[:2] for frame in recorded} == {(72, 128)}


def test_one_that_is_not_there_at_first_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, StandInCamera([None, pictures(5)]))
    with pytest.raises(InputError, match="camera 0 cannot be opened"):
        open_source("0", QUICK)


def test_what_is_asked_of_it_is_asked_in_the_drivers_order(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = plug_in(monkeypatch, StandInCamera([pictures(1), pictures(1)]))
    expected = [
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),
        (cv2.CAP_PROP_FRAME_WIDTH, 1280),
        (cv2.CAP_PROP_FRAME_HEIGHT, 720),
        (cv2.CAP_PROP_FPS, 30),
    ]
    with open_source("v4l2:///dev/video0?width=1280&height=720&rate=30&format=mjpeg"):
        assert camera.asked == expected
    camera.asked.clear()
    with open_source("camera:0?rate=15", parse_options("width=320,rate=60")):
        assert camera.asked == [(cv2.CAP_PROP_FRAME_WIDTH, 320), (cv2.CAP_PROP_FPS, 15)]


@pytest.mark.parametrize(
    ("uri", "said"),
    [("0", "start=3"), ("v4l2:///dev/video0?loop=2", ""), ("0", "transport=udp"), ("v4l2:///dev/video0?format=mjpeg ! x", "")],
)
def test_options_that_mean_nothing_to_it_are_refused(monkeypatch: pytest.MonkeyPatch, uri: str, said: str) -> None:
    plug_in(monkeypatch, StandInCamera([pictures(1)]))
    with pytest.raises(UsageError):
        open_source(uri, parse_options(said))


def test_closing_ends_the_wait_for_one_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, StandInCamera([pictures(2)]))
    source, frames = open_source("0", SourceOptions(reconnect_s=1000, retry_s=60)), []
    thread = threading.Thread(target=gather, args=(source, frames))
    thread.start()
    while source.state != "reconnecting":
        time.sleep(0.001)
    source.close()
    thread.join(10)
    assert not thread.is_alive()
    assert (len(frames), source.state) == (2, "closed")
