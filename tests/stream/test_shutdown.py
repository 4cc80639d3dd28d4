"""Ending a run: sources are let go of wherever they wait, Ctrl-C twice is Ctrl-C once, and what does not come back is named."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edgesod.errors import SourceLost
from edgesod.stream import Source, open_source, run_pipeline, stream_results
from edgesod.stream.handover import Handover, HandoverEnded
from edgesod.stream.sinks.null import NullSink
from edgesod.stream.sources.options import SourceOptions
from edgesod.types import Frame, Result
from tests.helpers.camera import StandInCamera, plug_in
from tests.helpers.video import pictures
from tests.helpers.waiting import until

LIMIT_S = 20
FOR_EVER = SourceOptions(reconnect_s=1000, retry_s=60)


class Waiting(Source):
    """Live: yields ``num`` frames, then waits until it is closed, or does not heed that and waits for ``release``."""

    name = "waiting"
    is_live = True

    def __init__(self, num: int = 1, *, is_deaf: bool = False) -> None:
        self.release = threading.Event()
        self._num, self._is_deaf = num, is_deaf

    def __iter__(self) -> Iterator[Frame]:
        for k in range(self._num):
            yield Frame(np.zeros((4, 4, 3), np.uint8), k, k / 25, self.name, time.perf_counter())
        self.release.wait(LIMIT_S)

    def close(self) -> None:
        if not self._is_deaf:
            self.release.set()


def process(frame: Frame) -> Result:
    return Result(np.zeros((2, 2), np.float32), (4, 4), frame=frame)


def stragglers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("edgesod-")]


@pytest.mark.parametrize("is_iterator", [False, True])
def test_a_source_that_is_being_waited_for_is_closed(monkeypatch: pytest.MonkeyPatch, is_iterator: bool) -> None:
    camera = plug_in(monkeypatch, StandInCamera([pictures(2)]))
    source = open_source("0", FOR_EVER)
    if is_iterator:
        for _ in stream_results(source, process):
            until(lambda: source.state == "reconnecting", "the loss")
            break
    else:
        stop = threading.Event()
        threading.Thread(target=lambda: (until(lambda: source.state == "reconnecting", "the loss"), stop.set())).start()
        run_pipeline(source, process, None, [], stop=stop)
    assert (source.state, camera.num_open, stragglers()) == ("closed", 0, [])


def test_a_second_ctrl_c_while_it_ends_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgesod.stream.pipeline._GRACE_S", 1.0)
    source, main = Waiting(is_deaf=True), threading.main_thread().ident
    assert main is not None

    def interrupt(frame: Frame, result: Result) -> None:
        def twice() -> None:
            for _ in range(2):
                time.sleep(0.3)
                signal.pthread_kill(main, signal.SIGINT)

        threading.Thread(target=twice).start()

    report = run_pipeline(source, process, None, [NullSink()], on_frame=interrupt)
    assert (report.interrupted, report.frames) == (True, 1)
    source.release.set()
    until(lambda: not stragglers(), "the threads' end")


def test_rendering_that_does_not_come_back_is_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("edgesod.stream.pipeline._GRACE_S", 0.1)
    caplog.set_level(logging.WARNING)
    begun, release, stop = threading.Event(), threading.Event(), threading.Event()
    sink = NullSink()
    sink.wants_picture = True

    def render(frame: Frame, _: Result) -> Any:
        begun.set()
        release.wait(LIMIT_S)
        return frame.image

    threading.Thread(target=lambda: (begun.wait(LIMIT_S), stop.set())).start()
    report = run_pipeline(Waiting(), process, render, [sink], stop=stop)
    release.set()
    assert report.frames == 0
    assert "rendering does not come back" in caplog.text
    until(lambda: not stragglers(), "the threads' end")


def test_an_error_after_the_end_is_nobodys() -> None:
    handover: Handover[int] = Handover(2)
    handover.close()
    handover.finish(SourceLost("closed while it was read"))
    with pytest.raises(HandoverEnded):
        handover.take()


def test_what_comes_after_the_end_does_not_overtake_what_waits() -> None:
    handover: Handover[int] = Handover(1, keeps_newest=True)
    assert handover.give(1)
    handover.finish()
    assert not handover.give(2)
    assert handover.take() == 1


# --- how long a source is waited for


@pytest.mark.parametrize("is_iterator", [False, True])
def test_one_of_two_sources_that_hangs_is_noticed_while_the_other_delivers(is_iterator: bool) -> None:
    sources = [open_source("synthetic://?width=32&height=32&rate=200&end=10"), Waiting()]

    def run() -> None:
        if is_iterator:
            for _ in stream_results(sources, process, lost_after_s=0.3):
                pass
        else:
            run_pipeline(sources, process, None, [], lost_after_s=0.3)

    begun_s = time.perf_counter()
    with pytest.raises(SourceLost, match=r"waiting delivered nothing for 0\.3 s"):
        run()
    assert time.perf_counter() - begun_s < 8


def test_a_source_is_given_the_time_that_its_own_time_outs_allow() -> None:
    source = Waiting()
    source.patience_s = LIMIT_S
    threading.Timer(0.6, source.release.set).start()
    assert run_pipeline(source, process, None, [], lost_after_s=0.2).frames == 1


def test_a_sources_patience_outlasts_its_time_outs(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, StandInCamera([pictures(1)] * 2))
    options = SourceOptions(read_timeout_s=13)
    for source in (open_source("0", options), open_source("0", options.model_copy(update={"flip": "horizontal"}))):
        with source:
            assert source.patience_s > 2 * 13
    assert open_source("synthetic://?rate=0.05").patience_s > 20
