"""Publish pictures to an RTSP server."""

from __future__ import annotations

import json
import logging
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult, urlsplit

import numpy as np
from numpy.typing import NDArray

from edgesod.errors import OutputError, UsageError
from edgesod.stream.base import Sink, as_bgr
from edgesod.stream.sinks.h264 import DEFAULT_FPS, MAX_LENGTH
from edgesod.stream.sinks.rtsp_publisher import HEADER
from edgesod.stream.sources.reconnect import pauses
from edgesod.stream.uri import redacted
from edgesod.types import Frame, Result

_PORT = 554
_RETRY_S = 0.5
_KNOCK_S = 2.0
_FIRST_WITHIN_S = 20.0
"""For a process to start, several answers of the server, and the first picture."""
_NEXT_WITHIN_S = 3.0
_CLOSE_S = 0.5
_KILLED_S = 0.3
_HINT = "see that the server runs, lets you publish there, and takes H.264 over TCP"

_log = logging.getLogger("edgesod.stream")


class RtspSink(Sink):
    """H.264 published to an RTSP server (``ANNOUNCE``, ``RECORD``, over TCP), for whoever asks the server for it.

    Made to be watched now: no B-frames, nothing held back by the encoder, a key frame every second, at most 8 Mbit/s. Pictures carry
    the times at which they were captured; of those that come faster than they can be sent, the newest is.

    :meth:`write` never waits: a thread sends, through a process of its own (:mod:`edgesod.stream.sinks.rtsp_publisher`). A server
    that cannot be reached at the start, or refuses the first picture, is an error. One that is lost later is tried again for
    ever, with pauses that grow to 10 s, while the run goes on; pictures until then are left out.

    Args:
        url: ``rtsp://[user:password@]host[:port]/name``; the credentials show up nowhere.
        fps: Nominal pictures per second, 25 for ``None``.

    Attributes:
        num_sent: Pictures that the server was sent.
        num_left_out: Pictures that were not sent.
        num_reconnects: How often the server was lost and came back.
        state: ``"open"``, ``"reconnecting"`` or ``"closed"``.

    Raises:
        UsageError: The URL names no host, or a port that is no number.
        OutputError: No RTSP server answers there.
    """

    def __init__(self, url: str, *, fps: float | None = None) -> None:
        self.name = redacted(url)
        self.num_sent = self.num_left_out = self.num_reconnects = 0
        self.state = "open"
        self._url = _split(url, self.name)
        self._fps = fps or DEFAULT_FPS
        self._failure: OutputError | None = None
        self._newest: tuple[NDArray[np.uint8], float] | None = None
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._publisher: _Publisher | None = None
        try:
            self._connect()
        except OSError as error:
            raise OutputError(f"cannot publish to {self.name}: {_reason(error)}", hint=_HINT) from None
        self._thread = threading.Thread(target=self._work, name="edgesod-rtsp", daemon=True)
        self._thread.start()

    def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
        """See :meth:`Sink.write`; takes as long as copying a picture."""
        image = as_bgr(image)
        if max(image.shape) > MAX_LENGTH:
            raise OutputError(f"cannot publish to {self.name}: H.264 ends at {MAX_LENGTH} pixels, the picture is larger")
        if self._closing.is_set():
            raise OutputError(f"{self.name} is closed: no picture can be added")
        if self._failure:
            raise self._failure
        picture = image.copy(), frame.captured_at_s
        with self._changed:
            self.num_left_out += self._newest is not None
            self._newest = picture
            self._changed.notify()

    def close(self) -> None:
        """See :meth:`Sink.close`; takes at most 1 s, whatever the server does."""
        if self._closing.is_set():
            return
        self._end()
        if self._failure:
            raise self._failure

    def abort(self) -> None:
        """See :meth:`Sink.abort`."""
        if not self._closing.is_set():
            self._end()

    def _end(self) -> None:
        with self._changed:
            self._closing.set()
            self._changed.notify()
        if self._publisher:  # else the server is lost: nobody to say good-bye to
            self._thread.join(_CLOSE_S)
        if self._thread.is_alive() and (publisher := self._publisher):
            publisher.kill()
            self._thread.join(_KILLED_S)
        self.state = "closed"
        self.num_left_out += self._newest is not None
        counts = f"{self.num_sent} pictures sent, {self.num_left_out} left out, {self.num_reconnects} reconnects"
        _log.info("%s: %s", self.name, counts)

    def _work(self) -> None:
        waits: Iterator[float] = iter(())
        while picture := self._take():
            try:
                current = self._publisher or self._connect()
                current.send(*picture, _NEXT_WITHIN_S if current.has_sent else _FIRST_WITHIN_S)
            except OSError as error:
                self.num_left_out += 1
                if self._publisher:
                    self._publisher.let_go()
                    self._publisher = None
                if self._closing.is_set():
                    return
                if not self.num_sent:
                    self._failure = OutputError(f"cannot publish to {self.name}: {_reason(error)}", hint=_HINT)
                    return
                if self.state == "open":
                    self.state, waits = "reconnecting", pauses(_RETRY_S)
                    _log.warning("%s is lost: %s; the run goes on", self.name, _reason(error))
                pause_s = next(waits)
                _log.info("%s: %s; trying again in %.1f s", self.name, _reason(error), pause_s)
                self._closing.wait(pause_s)
                continue
            self.num_sent += 1
            if self.state == "reconnecting":
                self.state = "open"
                self.num_reconnects += 1
                _log.warning("%s is back (reconnects so far: %d)", self.name, self.num_reconnects)
        if self._publisher:
            self._publisher.finish(_CLOSE_S)

    def _take(self) -> tuple[NDArray[np.uint8], float] | None:
        """Return the newest picture once there is one; ``None`` when there is none and none will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._closing.is_set())
            picture, self._newest = self._newest, None
            return picture

    def _connect(self) -> _Publisher:
        """Start a process that publishes, where a server answers.

        Raises:
            OSError: None does.
        """
        host, port = _knock(self._url)
        user, at, _ = self._url.netloc.rpartition("@")
        # The very address that answered, so that no name is looked up twice.
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._publisher = _Publisher(self._url._replace(netloc=f"{user}{at}{place}").geturl(), self._fps)
        return self._publisher


class _Publisher:
    """The other process; what goes wrong with it or with its server is an :class:`OSError`."""

    def __init__(self, url: str, fps: float) -> None:
        command = [sys.executable, "-m", "edgesod.stream.sinks.rtsp_publisher"]
        # A session of its own, or Ctrl-C would end it before the run. The URL is not among the arguments, which everybody can see.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0, start_new_session=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._pictures, self._answers = self._process.stdin, self._process.stdout
        self._first_s: float | None = None
        self.has_sent = False
        self._write(json.dumps({"url": url, "fps": fps}).encode() + b"\n")

    def send(self, image: NDArray[np.uint8], captured_at_s: float, within_s: float) -> None:
        self._first_s = captured_at_s if self._first_s is None else self._first_s
        self._write(HEADER.pack(captured_at_s - self._first_s, *image.shape[:2]))
        self._write(image.data)
        if not select.select([self._answers], [], [], within_s)[0]:
            raise TimeoutError("it does not answer in time")
        answer = self._answers.readline().decode()
        if answer != "\n":
            raise ConnectionError(answer.strip() or "the publishing process ended")
        self.has_sent = True

    def finish(self, within_s: float) -> None:
        """Say good-bye to the server."""
        self._pictures.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        self.let_go()

    def kill(self) -> None:
        """End the process, which ends whatever waits for it; from any thread."""
        self._process.kill()

    def let_go(self) -> None:
        self.kill()
        self._process.wait()
        self._answers.close()
        self._pictures.close()

    def _write(self, content: bytes | memoryview) -> None:
        left = memoryview(content).cast("B")
        while left:
            left = left[self._pictures.write(left) :]


def _split(url: str, name: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if parts.hostname and (parts.port or _PORT):
            return parts
    except ValueError:  # its words hold a part of the URL
        pass
    raise UsageError(f"{name} names no server", hint="rtsp://host:8554/name; other signs in a password as %40, %2F, …")


def _knock(url: SplitResult) -> tuple[str, int]:
    """Return the address and port at which an RTSP server answers.

    Raises:
        OSError: None does.
    """
    port = url.port or _PORT
    with socket.create_connection((url.hostname or "", port), _KNOCK_S) as server:
        address = server.getpeername()[0]
        place = url._replace(netloc=url.netloc.rpartition("@")[2], query="", fragment="").geturl()
        server.sendall(f"OPTIONS {place} RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: edgesod\r\n\r\n".encode())
        if not server.recv(4096).startswith(b"RTSP/"):
            raise ConnectionError("what answers is no RTSP server")
    return address, port


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    return error.strerror or str(error) or type(error).__name__
