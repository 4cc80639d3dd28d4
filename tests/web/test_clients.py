"""Browsers that are slow, many, or gone: none of them may be felt by the run."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
import requests

from edgesod.errors import DeviceError
from edgesod.processing.look import Look
from edgesod.runtime.memory_session import MemorySession
from edgesod.stream import open_source, run_pipeline
from edgesod.stream.statistics import LiveStatistics
from edgesod.types import Frame, Result, TensorSpec
from edgesod.web import app, open_page
from tests.helpers.page import LIMIT_S, Body, Run, connect, events_of, parts_of, status_of
from tests.helpers.video import stamp_of, stamped
from tests.helpers.waiting import until

_SLOW = 50
_ROUNDS = 5
_FRAMES = 40
_MOST_SLOWER = 1.5  # waiting for one of them, or a JPEG for each, is many times
_SOON_S = 10.0  # two seconds is what is promised on a machine that has nothing else to do; waiting for a client has no end


@contextmanager
def slow_clients(run: Run, num: int) -> Iterator[None]:
    """So many clients that ask for the stream and then read nothing."""
    with ExitStack() as stack:
        for _ in range(num):
            stack.enter_context(connect(run.port, receive_bytes=4096))
        until(lambda: run.page._monitor.num_viewers == num, "all being served")
        yield
    until(lambda: run.page._monitor.num_viewers == 0, "all being gone")


def test_fifty_slow_clients_do_not_slow_the_engine(run: Run) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)  # noise: as many bytes as a JPEG gets
    spec = TensorSpec("x", (1, 3, 32, 32), "float32")
    feeds = {"x": np.zeros(spec.shape, np.float32)}

    with MemorySession(lambda arrays: {"x": arrays["x"] + 1}, [spec], [spec], delay_s=0.003) as session:

        def seconds() -> float:
            begun_s = time.perf_counter()
            for k in range(_FRAMES):
                session.run(feeds)
                run.page.write(picture, Frame(picture, k))
            return time.perf_counter() - begun_s

        seconds()
        alone, beside = [], []
        for _ in range(_ROUNDS):
            alone.append(seconds())
            with slow_clients(run, _SLOW):
                seconds()  # what each takes before it is full
                encoded = run.page._pictures.num_encoded
                beside.append(seconds())
                assert run.page._pictures.num_encoded - encoded < _FRAMES / 4  # nobody is ready, so next to nothing is made
    # whatever else the machine does only ever adds: the least of each is what they take
    assert min(beside) <= _MOST_SLOWER * min(alone), (
        f"{min(beside):.3f} s beside {_SLOW} slow clients, {min(alone):.3f} s alone"
    )


def test_a_slow_client_skips_pictures_and_a_fast_one_does_not_wait_for_it(run: Run) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)
    with connect(run.port, receive_bytes=4096) as slow, connect(run.port) as fast:
        until(lambda: run.page._monitor.num_viewers == 2, "both being served")
        received = parts_of(Body.of(fast))
        for number in range(30):
            until(run.page._pictures.is_due, "the fast one waiting for more")
            run.page.write(stamped(noise.copy(), number), Frame(noise, number))
            assert number_of(next(received)) == number  # every one, at once
        late = [number_of(part) for part in up_to(parts_of(Body.of(slow)), last=29)]
    assert late == sorted(set(late))
    assert late[-1] == 29  # what it gets in the end is the newest
    assert len(late) < 15


def test_a_browser_that_leaves_within_a_picture_is_forgotten(run: Run) -> None:
    with run.going():
        for _ in range(5):
            with connect(run.port, receive_bytes=4096) as client:
                assert client.recv(300).startswith(b"HTTP/1.1 200")  # a head, and a piece of a picture
        until(lambda: run.page._monitor.num_viewers == 0, "leaving")
        with requests.get(run.base + "/stream.mjpg", stream=True, timeout=LIMIT_S) as answer:
            assert next(answer.iter_content(None))
    assert run.page._monitor.num_viewers <= 1


def test_beyond_so_many_viewers_the_next_is_told_to_come_back(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MOST_VIEWERS", 2)
    with slow_clients(run, 2):
        with connect(run.port) as third:
            assert status_of(third) == 503
        with connect(run.port, "GET /api/state", "Connection: close\r\n") as other:
            assert status_of(other) == 200  # the page itself goes on
    with connect(run.port) as next_one:
        assert status_of(next_one) == 200


def test_closing_does_not_wait_for_anybody() -> None:
    before = set(threading.enumerate())
    run = Run()
    with ExitStack() as stack:
        for k in range(60):
            run.push()
            if k % 3 == 0:  # some full, some who have sent half a request, some who never said anything
                stack.enter_context(connect(run.port, receive_bytes=4096))
                stack.enter_context(connect(run.port, "GET /api/events", receive_bytes=4096))
                stack.enter_context(
                    connect(run.port, "POST /api/look", "Content-Type: application/json\r\nContent-Length: 9\r\n")
                )
        until(lambda: run.page._monitor.num_viewers == 20, "all being served")
        begun_s = time.monotonic()
        run.page.close()
        assert time.monotonic() - begun_s < _SOON_S
        run.page.close()
        run.page.abort()
    assert set(threading.enumerate()) <= before
    with pytest.raises(ConnectionRefusedError):
        connect(run.port)
    again = Run(f"127.0.0.1:{run.port}")  # the port is free at once, for a service that is started again
    again.page.close()


@pytest.mark.parametrize("ending", ["stop", "engine", "source"])
def test_a_run_ends_in_time_whoever_watches(ending: str) -> None:
    statistics, look, stop = LiveStatistics(), Look(), threading.Event()
    source = open_source("synthetic://?width=640&height=360&rate=30" + ("&end=1.5" if ending == "source" else ""))
    has_failed = threading.Event()

    def process(frame: Frame) -> Result:
        if has_failed.is_set():
            raise DeviceError("the engine failed")
        return Result(np.full((8, 8), 0.5, np.float32), (360, 640), frame=frame)

    page = open_page("127.0.0.1:0", statistics=statistics, look=look)
    port = urlsplit(page.url).port or 0
    ended: list[object] = []

    def work() -> None:
        try:
            ended.append(run_pipeline(source, process, look.render, [page], stop=stop, statistics=statistics).frames)
        except DeviceError as error:
            ended.append(error)

    run = threading.Thread(target=work)
    with connect(port, receive_bytes=4096), connect(port, "GET /api/events") as watching, connect(port) as leaving:
        run.start()
        leaving.recv(2000)
        leaving.close()  # within a picture
        until(lambda: statistics.frames > 10, "ten frames")
        if ending == "stop":
            stop.set()
        elif ending == "engine":
            has_failed.set()
        begun_s = time.monotonic()
        run.join(LIMIT_S)
        assert time.monotonic() - begun_s < _SOON_S
        last = list(events_of(Body.of(watching)))[-1][1]
    assert last["statistics"]["state"] == "ended"
    assert isinstance(ended[0], DeviceError if ending == "engine" else int)


def up_to(parts: Iterator[bytes], last: int) -> Iterator[bytes]:
    """Yield pictures up to and with number ``last``."""
    for part in parts:
        yield part
        if number_of(part) == last:
            return


def number_of(jpeg: bytes) -> int:
    return stamp_of(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))
