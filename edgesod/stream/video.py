"""Video files and network streams, through PyAV."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import av
import av.error
import cv2
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from edgesod.errors import InputError, SourceLost
from edgesod.stream.base import Source
from edgesod.stream.uri import redacted, scheme_of
from edgesod.types import Frame

_TIMEOUT_S = 5.0
_TURNS = {
    90: cv2.ROTATE_90_COUNTERCLOCKWISE,
    -90: cv2.ROTATE_90_CLOCKWISE,
    180: cv2.ROTATE_180,
    -180: cv2.ROTATE_180,
}
"""What undoes a display matrix; PyAV gives its angle in degrees, counter-clockwise."""


class VideoSource(Source):
    """A video file, or a stream behind ``rtsp://`` or ``http://``.

    Times are those in the file, so a variable frame rate survives; they count from the first frame. Frames are turned
    as the file's display matrix asks. A file that is damaged part-way yields the whole frames before the damage.

    Args:
        uri: A path, or a URL, whose credentials show up nowhere.
        timeout_s: How long a network stream may take to open, and to deliver.

    Raises:
        InputError: Nothing in it can be decoded, or nobody answers at the URL.
    """

    def __init__(self, uri: str | Path, *, timeout_s: float = _TIMEOUT_S) -> None:
        is_network = isinstance(uri, str) and scheme_of(uri) != ""
        self.name = redacted(str(uri))
        self._reading = threading.Lock()
        self._is_closed = False
        self._container = self._open(str(uri), timeout_s) if is_network else self._open(f"file:{uri}", None)
        try:
            self._describe(is_network)
            frames = self._decode()
            # A file shows at once whether it can be decoded, and which way up it is; a camera's frame would only grow old.
            self._frames = frames if self.is_live else chain((next(frames),), frames)
        except StopIteration:
            self.close()
            raise InputError(f"{self.name} holds no frame that can be decoded") from None
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Frame]:
        start_s: float | None = None
        time_base = float(self._container.streams.video[0].time_base or 0)
        for index, decoded in enumerate(self._frames):
            # Not `decoded.time`: frames that were held back at a damage do not know their time base.
            time_s = index / (self.fps or 25.0) if decoded.pts is None else decoded.pts * time_base
            if start_s is None:
                start_s = time_s
            image = _bgr(decoded)
            yield Frame(image, index, time_s - start_s, self.name, time.perf_counter())

    def close(self) -> None:
        self._is_closed = True
        with self._reading:
            self._container.close()

    def _open(self, url: str, timeout_s: float | None) -> InputContainer:
        options = {"rtsp_transport": "tcp", "fflags": "nobuffer"} if scheme_of(url) in ("rtsp", "rtsps") else {}
        begun_s = time.perf_counter()
        try:
            return av.open(url, timeout=timeout_s, options=options, metadata_errors="replace")
        except (av.error.FFmpegError, OSError) as error:
            is_late = timeout_s is not None and time.perf_counter() - begun_s >= timeout_s
            reason = "it does not answer in time" if is_late else _reason(error)
        # Raised out here so that nothing hangs on to FFmpeg's own error, which carries the URL, password included.
        raise InputError(f"{self.name} cannot be opened as a video: {reason}")

    def _describe(self, is_network: bool) -> None:
        if not self._container.streams.video or self._container.streams.video[0].codec_context is None:
            raise InputError(f"{self.name} holds no video that can be decoded")
        stream = self._container.streams.video[0]
        self.is_live = is_network and self._container.duration is None
        if not self.is_live:
            stream.thread_type = "AUTO"  # decode ahead on several cores; live, every frame decoded ahead is a frame late
        rate = stream.average_rate or stream.guessed_rate
        self.fps = float(rate) if rate else None
        if stream.width and stream.height:
            self.size_hw = (stream.height, stream.width)
        if not self.is_live:
            seconds = self._container.duration / av.time_base if self._container.duration else 0.0
            self.num_frames = stream.frames or round(seconds * (self.fps or 0.0)) or None

    def _decode(self) -> Iterator[VideoFrame]:
        packets = self._container.demux(self._container.streams.video[0])
        num_decoded = 0
        while True:
            frames, damage, is_end = self._step(packets)
            for frame in frames:
                if frame.is_corrupt and not self.is_live:
                    # Before the first whole frame it is a clip cut without a key frame; later the decoder made it up.
                    if num_decoded == 0:
                        continue
                    damage = damage or "a picture is incomplete"
                    break
                if num_decoded == 0:
                    turned = frame.rotation in (90, -90)
                    self.size_hw = (frame.width, frame.height) if turned else (frame.height, frame.width)
                yield frame
                num_decoded += 1
            if damage and self.is_live and not is_end:
                continue
            if damage and self.is_live:
                raise SourceLost(
                    f"{self.name} went away after {num_decoded} frames: {damage}", hint="start again once it is back"
                )
            if damage:
                total = f" of {self.num_frames}" if self.num_frames else ""
                raise InputError(f"{self.name} is damaged: {num_decoded}{total} frames can be read, then {damage}")
            if is_end:
                return

    def _step(self, packets: Iterator[av.Packet[VideoStream]]) -> tuple[list[VideoFrame], str, bool]:
        """Decode one packet: the frames it completes, what is wrong if anything, and whether nothing can follow."""
        with self._reading:
            if self._is_closed:
                return [], "", True
            try:
                packet = next(packets)
            except StopIteration:
                return [], "the stream ended" if self.is_live else "", True
            except (av.error.FFmpegError, OSError) as error:
                return self._held_back(), _reason(error), True
            # A packet cut short decodes into a smeared picture, or into nothing without a word, by thread type.
            if packet.is_corrupt:
                return self._held_back(), "a packet is cut short", False
            try:
                return packet.decode(), "", False
            except av.error.FFmpegError as error:
                return self._held_back(), _reason(error), False

    def _held_back(self) -> list[VideoFrame]:
        """Return the whole frames that the decoder still holds before a damage; none when live, which goes on."""
        if self.is_live:
            return []
        try:
            return self._container.streams.video[0].codec_context.decode(None)
        except (av.error.FFmpegError, EOFError):
            return []


def _bgr(frame: VideoFrame) -> NDArray[np.uint8]:
    image = np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
    turn = _TURNS.get(frame.rotation)
    return image if turn is None else np.asarray(cv2.rotate(image, turn), np.uint8)


def _reason(error: Exception) -> str:
    if isinstance(error, av.error.ExitError):
        return "it does not answer in time"
    return str(getattr(error, "strerror", None) or type(error).__name__)
