"""Pictures published to a real RTSP server, which decodes them, is killed, started again, and falls silent."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from edgesod.errors import OutputError, UsageError
from edgesod.stream import open_sink
from edgesod.stream.sinks.rtsp import RtspSink
from edgesod.stream.sinks.rtsp_publisher import TIMEOUT_S, live_stream
from edgesod.types import Frame
from tests.helpers.rtsp_server import RtspRecorder, missing
from tests.helpers.waiting import until

USER, PASSWORD = "robot", "hunter%402"
COLOURS = (40, 90, 180), (200, 120, 30)
SIZE_HW = (72, 128)
FPS = 25
LIMIT_S = 60


@pytest.fixture
def recorder() -> Iterator[RtspRecorder]:
    if reason := missing(to_record=True):
        pytest.skip(reason)
    with RtspRecorder(user=USER, password=PASSWORD.replace("%40", "@")) as running:
        yield running


def url_of(recorder: RtspRecorder, password: str = PASSWORD) -> str:
    return recorder.url.replace("://", f"://{USER}:{password}@")


def picture() -> NDArray[np.uint8]:
    """Return two colours side by side, the left one three times as wide."""
    image = np.empty((*SIZE_HW, 3), np.uint8)
    image[:, : SIZE_HW[1] * 3 // 4] = COLOURS[0]
    image[:, SIZE_HW[1] * 3 // 4 :] = COLOURS[1]
    return image


def write(sink: RtspSink, image: NDArray[np.uint8], index: int, time_s: float | None = None) -> float:
    """Write one picture and return the seconds it took."""
    begun_s = time.perf_counter()
    sink.write(image, Frame(image, index, index / FPS, "test", begun_s if time_s is None else time_s))
    return time.perf_counter() - begun_s


@contextmanager
def writing(sink: RtspSink) -> Iterator[list[Exception]]:
    """Write a picture every 25th of a second meanwhile; yield what that raises."""
    done, raised = threading.Event(), []

    def work() -> None:
        index = 0
        try:
            while not done.wait(1 / FPS):
                write(sink, picture(), index)
                index += 1
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield raised
    finally:
        done.set()
        thread.join()


def test_a_server_gets_the_pictures_and_is_found_again(recorder: RtspRecorder, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sink = open_sink(url_of(recorder), fps=FPS)
    assert isinstance(sink, RtspSink)
    with sink, writing(sink) as raised:
        for starts in range(2):
            if starts:
                recorder.kill()
                until(lambda: sink.state == "reconnecting", "the loss")
                recorder.start()
            got = [recorder.read() for _ in range(FPS)]
            times_s = [time_s for time_s, *_ in got]
            assert {(height, width) for _, height, width, _ in got} == {SIZE_HW}
            expected = (3 * np.array(COLOURS[0]) + np.array(COLOURS[1])) / 4
            assert np.abs(np.array([means for *_, means in got]) - expected).max() < 5
            # Sent times rise (below); a receiver's jitter buffer makes one that its skew correction would turn back equal to the last.
            assert all(earlier <= later for earlier, later in pairwise(times_s))
            assert times_s[0] < times_s[-1]
            until(lambda: sink.num_reconnects == starts and sink.state == "open", "the return")  # noqa: B023
    assert not raised
    assert sink.state == "closed"
    assert sink.num_sent >= 2 * FPS
    assert f"{sink.num_sent} pictures sent, {sink.num_left_out} left out, 1 reconnects" in caplog.text
    assert "***@127.0.0.1" in caplog.text
    assert USER not in caplog.text
    assert "hunter" not in caplog.text


def test_a_server_that_falls_silent_holds_nobody_up(recorder: RtspRecorder) -> None:
    sink = RtspSink(url_of(recorder), fps=FPS)
    # Noise, a second of its own time each, so that what the kernel takes on the server's behalf is soon full.
    noise = np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)
    write(sink, noise, 0, 0.0)
    recorder.read()
    recorder.freeze()
    begun_s, index, longest_s = time.perf_counter(), 0, 0.0
    while sink.state != "reconnecting":
        index += 1
        longest_s = max(longest_s, write(sink, np.roll(noise, index, axis=1), index, float(index)))
        assert time.perf_counter() - begun_s < LIMIT_S
        time.sleep(0.02)
    assert time.perf_counter() - begun_s > TIMEOUT_S
    assert longest_s < TIMEOUT_S / 3
    closing_s = time.perf_counter()
    sink.close()
    assert time.perf_counter() - closing_s < 2


def test_a_refusal_of_the_first_picture_is_an_error(recorder: RtspRecorder) -> None:
    with RtspSink(url_of(recorder, "wrong")) as sink, writing(sink) as raised:
        until(lambda: raised, "the refusal")
        sink.abort()
    (error,) = raised
    assert isinstance(error, OutputError)
    assert "401" in str(error)
    assert not any(secret in str(error) + repr(error.__cause__) + repr(error.__context__) for secret in ("wrong", USER))


def test_what_is_no_server_is_an_error_at_once() -> None:
    with pytest.raises(UsageError, match="names no server") as caught:
        open_sink("rtsp://robot:hunter2@host:port/name")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(OutputError, match=r"cannot publish to rtsp://\*\*\*@127\.0\.0\.1:9/name: Connection refused"):
        open_sink("rtsp://robot:hunter2@127.0.0.1:9/name")


def test_every_picture_is_coded_at_once_with_a_key_frame_a_second() -> None:
    with av.open(io.BytesIO(), "w", format="matroska") as container:
        stream = live_stream(container, SIZE_HW, FPS)
        # Slower than they were announced, so that counting pictures would give a key frame every two seconds and a half.
        coded = [stream.encode(picture(), k / 10) for k in range(35)]
    assert [len(packets) for packets in coded] == [1] * 35
    assert [k for k, (packet,) in enumerate(coded) if packet.is_keyframe] == [0, 10, 20, 30]
    assert all(packet.pts == packet.dts for (packet,) in coded)
    assert all(earlier.pts < later.pts for (earlier,), (later,) in pairwise(coded))
