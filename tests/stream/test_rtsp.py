"""An RTSP stream of a real server that is killed, started again, falls silent, or is read too slowly."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgesod.errors import InputError, SourceLost
from edgesod.stream import Sink, Source, open_source, run_pipeline
from edgesod.stream.sources.options import SourceOptions
from edgesod.stream.sources.video import VideoSource
from edgesod.types import Frame, Result
from tests.helpers.rtsp_server import RtspServer, missing
from tests.helpers.sleeping import sleeping_runtime
from tests.helpers.video import pictures, stamp_of, write_clip
from tests.helpers.waiting import until

FPS = 25
NUM_FRAMES = 100
INFERENCE_S = 0.03
KILLS = 5
LIMIT_S = 60


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", pictures(NUM_FRAMES), keyframe_every=FPS)


@pytest.fixture
def server(clip: Path, tmp_path: Path) -> Iterator[RtspServer]:
    if reason := missing():
        pytest.skip(reason)
    with RtspServer(clip, tmp_path, fps=FPS) as running:
        yield running


class AgeSink(Sink):
    """Notes how old each frame is when it arrives, counted from its decoding and less its own inference, in seconds."""

    name = "ages"
    wants_picture = False

    def __init__(self) -> None:
        self.ages_s: list[float] = []

    def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
        assert result is not None
        self.ages_s.append(time.perf_counter() - frame.captured_at_s - result.times_ms["inference"] / 1e3)


def resources() -> dict[str, int]:
    """Return this process's resident memory in bytes, its threads and its open files."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "bytes": pages * os.sysconf("SC_PAGE_SIZE"),
        "threads": len(os.listdir("/proc/self/task")),
        "files": len(os.listdir("/proc/self/fd")),
    }


def test_a_killed_server_is_found_again_every_time_and_nothing_grows(server: RtspServer) -> None:
    source = open_source(server.url, SourceOptions(read_timeout_s=2, reconnect_s=LIMIT_S, retry_s=0.05))
    sink, stop, ended = AgeSink(), threading.Event(), []
    ages_s, used = [], []

    def run() -> None:
        with sleeping_runtime(INFERENCE_S) as runtime:
            ended.append(run_pipeline(source, lambda frame: runtime(frame.image), None, [sink], stop=stop))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for kill in range(KILLS + 1):
            until(lambda: len(sink.ages_s) >= FPS, "frames")
            used.append(resources())
            ages_s += sink.ages_s
            if kill == KILLS:
                break
            server.kill()
            until(lambda: source.state == "reconnecting", "the loss")
            sink.ages_s.clear()
            server.start()
            until(lambda: source.num_reconnects == kill + 1 and source.state == "open", "the return")  # noqa: B023
    finally:
        stop.set()
        thread.join()
    (report,) = ended
    assert report.reconnects == KILLS
    # A frame or two, the inference being counted off already; what waited in a queue would be older by its length.
    assert np.median(ages_s) < 4 / FPS
    assert np.percentile(ages_s, 95) < 1
    # What each loss left behind would be there as often as there were losses.
    assert used[-1]["threads"] < used[1]["threads"] + KILLS - 1
    assert used[-1]["files"] < used[1]["files"] + KILLS - 1
    assert used[-1]["bytes"] < 1.1 * used[1]["bytes"]


def test_a_server_that_falls_silent_is_a_loss_and_one_that_stays_away_is_the_end(server: RtspServer) -> None:
    options = SourceOptions(open_timeout_s=2, read_timeout_s=0.5, reconnect_s=1.0, retry_s=0.05)
    source, sink = open_source(server.url, options), AgeSink()

    def freeze(frame: Frame, _: Result) -> None:
        if len(sink.ages_s) == 10:
            server.freeze()

    with sleeping_runtime(INFERENCE_S) as runtime, pytest.raises(SourceLost) as caught:
        run_pipeline(source, lambda frame: runtime(frame.image), None, [sink], on_frame=freeze)
    # What FFmpeg gives out first may be a packet cut short, and then the time is over too.
    assert re.search(r"(not answer in time|could be decoded for 0\.5 s); it did not come back within 1 s", str(caught.value))
    assert caught.value.exit_code == 6
    with pytest.raises(InputError, match="not answer in time"):
        VideoSource(server.url, SourceOptions(open_timeout_s=0.3))
    server.kill()
    with pytest.raises(InputError, match="Connection refused"):
        open_source(server.url)


def test_a_reader_too_slow_for_the_stream_stays_close_to_it(server: RtspServer) -> None:
    with VideoSource(server.url) as source:
        begun_s, rounds, last, late_s = 0.0, 0, 0, []
        for frame in source:
            stamp = stamp_of(frame.image)
            rounds, last = rounds + (stamp < last), stamp
            played_s = (rounds * NUM_FRAMES + stamp) / FPS
            begun_s = begun_s or time.perf_counter() - played_s
            late_s.append(time.perf_counter() - begun_s - played_s)
            if played_s > 6:
                break
            time.sleep(3 / FPS)
    # Every frame in turn would be four seconds late by now.
    assert np.median(late_s[len(late_s) // 2 :]) < 2.5


def test_the_first_picture_is_the_first_key_frame(server: RtspServer) -> None:
    source: Source = VideoSource(server.url)
    with source:
        assert (source.is_live, source.fps, source.size_hw) == (True, FPS, (72, 128))
        assert stamp_of(next(iter(source)).image) == 0
