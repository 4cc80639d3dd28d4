"""A run with a page, without a network: pictures that move, pushed through the sink by a thread that paces them."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from edgesod.processing.look import Look
from edgesod.stream.base import Source
from edgesod.stream.statistics import DONE, LiveStatistics
from edgesod.types import Frame, Result
from edgesod.web import PageSink, open_page
from tests.helpers.video import pictures

LIMIT_S = 20
"""After which a test gives up on something that has to happen some time."""


class Camera(Source):
    """What the statistics ask about; its frames are pushed by :class:`Run`."""

    def __init__(self, name: str = "camera") -> None:
        self.name = name
        self.is_live = True

    def __iter__(self) -> Iterator[Frame]:
        yield from ()


class Run:
    """What the pipeline is to a page.

    Attributes:
        page: The page, open.
        statistics: What it shows.
        look: What it changes.
        source: One that never was.
    """

    def __init__(self, address: str = "127.0.0.1:0", *, token: str | None = None, source: str = "camera") -> None:
        self.source = Camera(source)
        self.statistics = LiveStatistics()
        self.look = Look()
        self.page: PageSink = open_page(address, statistics=self.statistics, look=self.look, token=token)
        self.statistics.begin([self.source])
        self.base = self.page.name.rstrip("/")
        self.port = urlsplit(self.page.url).port or 0
        self._images = pictures(40, (180, 320))
        self._num = 0

    def push(self) -> Frame:
        """Send one frame all the way: its left half is what the network found."""
        image = self._images[self._num % len(self._images)]
        frame = Frame(image, self._num, self._num / 30, self.source.name, time.perf_counter())
        saliency = np.zeros((18, 32), np.float32)
        saliency[:, :16] = 1
        result = Result(saliency, (180, 320), frame=frame)
        self.page.write(self.look.render(frame, result), frame, result)
        self.statistics.add_stages({"preprocess": 1.5, "inference": 12.0})
        self.statistics.add_age(DONE, 0.03)
        self.statistics.add_done((180, 320))
        self._num += 1
        return frame

    @contextmanager
    def going(self, fps: float = 30) -> Iterator[None]:
        """Push frames from a thread, while the block lasts."""
        stop = threading.Event()

        def work() -> None:
            while not stop.wait(1 / fps):
                self.push()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def connect(
    port: int, request: str = "GET /stream.mjpg", headers: str = "", *, receive_bytes: int | None = None
) -> socket.socket:
    """Return a connection on which a request was sent and nothing was read; ``receive_bytes`` is what the system takes unread."""
    client = socket.socket()
    client.settimeout(LIMIT_S)
    if receive_bytes is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    try:
        client.connect(("127.0.0.1", port))
        client.sendall(f"{request} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{headers}\r\n".encode())
    except OSError:
        client.close()
        raise
    return client


def status_of(client: socket.socket) -> int:
    """Read the status of an answer."""
    return int(client.makefile("rb").readline().split()[1])


class Body:
    """Reads an answer that comes in pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    @classmethod
    def of(cls, client: socket.socket) -> Body:
        """Read a connection past the answer's head, by chunks (RFC 9112, 7.1)."""
        file = client.makefile("rb")
        while file.readline() != b"\r\n":
            pass
        # of every chunk its length, itself and the end of its line
        return cls(file.read(int(size, 16) + 2)[:-2] for size in iter(file.readline, b"0\r\n"))

    def read(self, count: int) -> bytes:
        while len(self._rest) < count:
            self._rest += next(self._pieces)
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def __iter__(self) -> Iterator[bytes]:
        """Yield the lines that are left."""
        text = self._rest + b"".join(self._pieces)
        return iter(text.splitlines())

    def readline(self) -> bytes:
        while b"\n" not in self._rest:
            self._rest += next(self._pieces)
        return self.read(self._rest.index(b"\n") + 1)


def parts_of(body: Body) -> Iterator[bytes]:
    """Yield the JPEGs of a multipart stream, read as RFC 2046 has it and not as the page writes it."""
    assert body.readline().strip() == b"--edgesod-picture"
    while True:
        head = dict(line.decode().strip().split(": ", 1) for line in iter(body.readline, b"\r\n"))
        assert head["Content-Type"] == "image/jpeg"
        yield body.read(int(head["Content-Length"]))
        assert body.readline() == b"\r\n"
        assert body.readline().strip() == b"--edgesod-picture"


def events_of(lines: Iterable[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield names and values of a stream of server-sent events."""
    name = ""
    for line in lines:
        field, _, value = line.decode().strip().partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)
