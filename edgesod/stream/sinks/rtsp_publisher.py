"""The process that publishes to an RTSP server for :mod:`edgesod.stream.sinks.rtsp`.

It is a process of its own because PyAV holds Python's lock while FFmpeg speaks to a server at the beginning and the end of a
stream: one that hangs would stop every thread of the run. This one can be killed.

On standard input: one line of JSON with ``url`` and ``fps``, then for each picture :data:`HEADER` and uint8 BGR. On standard
output: one line for each picture, empty when it was sent, else what went wrong, which is the last. No line holds the URL.
"""

from __future__ import annotations

import json
import signal
import struct
import sys
import time
from typing import BinaryIO

import av
import av.error
import numpy as np
from av.container import OutputContainer

from edgesod.stream.sinks.h264 import H264Stream

HEADER = struct.Struct("<dII")
"""Time in seconds, height, width."""

TIMEOUT_S = 1.5
"""How long FFmpeg waits for one answer, or for the server to take what is sent."""

_KEY_EVERY_S = 1.0
_ENCODER = {"tune": "zerolatency", "crf": "23", "maxrate": "8M", "bufsize": "8M", "forced-idr": "1"}
_RTSP = {"rtsp_transport": "tcp", "timeout": str(round(TIMEOUT_S * 1e6))}


def publish(pictures: BinaryIO, answers: BinaryIO) -> None:
    """Publish pictures until there are no more, or something goes wrong."""
    said = json.loads(pictures.readline())
    container = av.open(said["url"], "w", format="rtsp", container_options=_RTSP)
    stream: H264Stream | None = None
    reason = ""
    while not reason and (header := pictures.read(HEADER.size)):
        time_s, height, width = HEADER.unpack(header)
        image = np.frombuffer(pictures.read(height * width * 3), np.uint8).reshape(height, width, 3)
        stream = stream or live_stream(container, (height, width), said["fps"])
        reason = _send(container, stream, image, time_s)
        answers.write(f"{reason}\n".encode())
        answers.flush()
    if not reason:
        container.close()


def live_stream(container: OutputContainer, size_hw: tuple[int, int], fps: float) -> H264Stream:
    """Return a stream whose every picture can be seen at once, and which can be joined every second."""
    return H264Stream(container, size_hw, fps, _ENCODER, key_every_s=_KEY_EVERY_S)


def _send(
    container: OutputContainer, stream: H264Stream, image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], time_s: float
) -> str:
    """Send one picture; return why it could not be, or nothing."""
    begun_s = time.perf_counter()
    reason = ""
    try:
        for packet in stream.encode(image, time_s):
            begun_s = time.perf_counter()
            container.mux(packet)
    except (av.error.FFmpegError, OSError) as error:
        reason = error.strerror or type(error).__name__
    # FFmpeg says of a time-out that it found invalid data, and nothing at all where it could not write.
    return "it does not answer in time" if time.perf_counter() - begun_s >= TIMEOUT_S else reason


if __name__ == "__main__":
    # A service manager tells every process to end; the run still has something to say, and closes the pipe when it has.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    publish(sys.stdin.buffer, sys.stdout.buffer)
