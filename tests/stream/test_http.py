"""MJPEG over HTTP, as cheap cameras send it: it comes back after an end and after a silence, and tells no password."""

from __future__ import annotations

import base64
import logging
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import cv2
import pytest

from edgesod.errors import InputError, SourceLost, UsageError
from edgesod.stream import open_source
from edgesod.stream.sources.options import SourceOptions
from edgesod.types import Frame
from tests.helpers.video import gather, pictures, stamp_of, write_clip

NUM = 20
SECRET = "hushhush"
SPOILS_S = 15
QUICK = SourceOptions(open_timeout_s=20, read_timeout_s=0.4, reconnect_s=60, retry_s=0.02)


class MjpegServer(ThreadingHTTPServer):
    """Sends :data:`NUM` pictures to each who asks, then hangs up, or falls silent with the connection open.

    Attributes:
        hangs: Whether it falls silent.
        spoils: Whether it goes on with what is no picture.
        refuses: Whether it answers 503.
        requests: Headers of who asked, and what for.
    """

    daemon_threads = True

    def __init__(self) -> None:
        self.hangs = self.refuses = self.spoils = False
        self.requests: list[tuple[str, str]] = []
        self.jpegs = [cv2.imencode(".jpg", image)[1].tobytes() for image in pictures(NUM)]
        self.ending = threading.Event()
        super().__init__(("127.0.0.1", 0), _Camera)


class _Camera(BaseHTTPRequestHandler):
    server: MjpegServer

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers.get("Authorization", "")))
        is_stranger = "token" in self.path and "Authorization" not in self.headers
        self.send_response(401 if is_stranger else 503 if self.server.refuses else 200)
        self.send_header("WWW-Authenticate", 'Basic realm="camera"')
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        if self.server.refuses or is_stranger:
            return
        try:
            for jpeg in self.server.jpegs:
                head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                self.wfile.write(head + jpeg + b"\r\n")
                time.sleep(0.01)
            until_s = time.perf_counter() + SPOILS_S
            while self.server.spoils and time.perf_counter() < until_s and not self.server.ending.wait(0.02):
                self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 64\r\n\r\n" + bytes(64) + b"\r\n")
            if self.server.hangs:
                self.server.ending.wait(30)
        except ConnectionError:
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[MjpegServer]:
    with MjpegServer() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield running
        running.ending.set()
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("how", ["ends", "hangs", "spoils"])
def test_it_comes_back_after_an_end_a_silence_and_a_flood_of_nonsense(server: MjpegServer, how: str) -> None:
    server.hangs, server.spoils = how == "hangs", how == "spoils"
    indices, stamps, times_s = [], [], []
    with open_source(f"http://127.0.0.1:{server.server_port}/live?quality=9", QUICK) as source:
        assert source.is_live
        for frame in source:
            indices.append(frame.index)
            stamps.append(stamp_of(frame.image))
            times_s.append(frame.time_s)
            if source.num_reconnects == 2 and stamps[-1] > 5:
                break
    assert indices == list(range(len(indices)))
    assert times_s == sorted(times_s)
    assert stamps.count(0) == 3
    assert max(stamps) >= NUM - 2  # FFmpeg holds the last one or two back until it has seen what follows
    # The query is the server's, as it was typed.
    assert server.requests == [("/live?quality=9", "")] * 3
    if how != "ends":
        gaps_s = [after - before for before, after in pairwise(times_s)]
        assert sum(QUICK.read_timeout_s <= gap_s < SPOILS_S for gap_s in gaps_s) == 2


def test_its_password_reaches_the_server_and_nothing_else(server: MjpegServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"http://me:{SECRET}@127.0.0.1:{server.server_port}/live?token={SECRET}"
    options = QUICK.model_copy(update={"reconnect_s": 0.3})
    with open_source(url, options) as source:
        frames = iter(source)
        assert SECRET not in next(frames).name + source.name
        server.refuses = True
        with pytest.raises(SourceLost) as caught:
            list(frames)
    with pytest.raises(InputError) as refused:
        open_source(url, options)
    told = caplog.text
    for error in (caught.value, refused.value):
        told += "".join(traceback.format_exception(error)) + error.hint
    assert "***@127.0.0.1" in told
    assert SECRET not in told
    expected = "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()
    assert server.requests[1] == (f"/live?token={SECRET}", expected)


def test_a_live_stream_has_no_beginning_to_start_from(server: MjpegServer) -> None:
    with pytest.raises(UsageError, match="is live"):
        open_source(f"http://127.0.0.1:{server.server_port}/live", SourceOptions(start_s=3))


def test_a_file_whose_server_falls_silent_is_damaged_there(tmp_path: Path) -> None:
    content = write_clip(tmp_path / "clip.mp4", pictures(100)).read_bytes()
    ending = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: %d\r\n\r\n" % len(content))
                connection.sendall(content[: len(content) // 2])
                ending.wait(60)

        thread = threading.Thread(target=serve)
        thread.start()
        frames: list[Frame] = []
        options = SourceOptions(open_timeout_s=5, read_timeout_s=0.3)
        with open_source(f"http://127.0.0.1:{listener.getsockname()[1]}/clip.mp4", options) as source:
            assert not source.is_live
            with pytest.raises(InputError, match=r"damaged: \d+ of 100 frames can be read"):
                gather(source, frames)
        ending.set()
        thread.join()
    assert [stamp_of(frame.image) for frame in frames] == list(range(len(frames)))
    assert len(frames) > 10
