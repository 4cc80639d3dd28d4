"""Write H.264 video, through PyAV."""

from __future__ import annotations

import os
import struct
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from edgesod.errors import OutputError
from edgesod.files import replacing
from edgesod.processing.effects import composite
from edgesod.stream.base import Sink, as_uint8
from edgesod.types import Frame, Result

DEFAULT_FPS = 25.0

_TIME_BASE = Fraction(1, 90_000)
"""MPEG's own clock: frames of 24, 25, 30 and 30000/1001 per second, and milliseconds, fall on whole ticks."""

_MAX_LENGTH = 16_384
_ENCODER = {"preset": "veryfast", "crf": "20", "bf": "0"}
"""No B-frames: with a variable frame rate their reordering makes the file's stated length end before its last frames."""


_IN_PIECES = {"movflags": "+empty_moov+default_base_moof", "frag_duration": "1000000", "flush_packets": "1"}
"""Without these an MP4's index is kept in memory and written at the end. Never ``faststart``: it copies the whole file once more
at the end, which for an hour's recording takes longer than a service may take to stop."""


class VideoSink(Sink):
    """An H.264 file, ``yuv420p`` in BT.709, that any player takes.

    It is written beside its place and moved there by :meth:`close`, so a crash leaves nothing that looks whole. With no
    picture written, there is no file. Of pictures that do not come again it is written in pieces that each play by themselves:
    what is there when the disk is full is kept, and memory does not grow with its length.

    Pictures keep their frames' times; one whose time does not advance comes ``1 / fps`` after the one before. An odd width or
    height is made even by repeating the last column or row; a picture of another size than the first is fitted in, on black.

    Args:
        path: The suffix gives the container; folders above it are made.
        fps: Nominal pictures per second, 25 for ``None``.
        size_hw: Height and width of the video in pixels; ``None`` takes the first picture's.
        is_live: Whether the pictures do not come again.

    Raises:
        OutputError: The place cannot be written.
    """

    def __init__(
        self, path: Path, *, fps: float | None = None, size_hw: tuple[int, int] | None = None, is_live: bool = False
    ) -> None:
        self.name = str(path)
        self._path = path
        self._fps = fps or DEFAULT_FPS
        self._size_hw = size_hw
        self._is_live = is_live
        self._place = ExitStack()
        self._temporary = self._place.enter_context(replacing(path))
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._reformatter = VideoReformatter()
        self._ticks = -1
        self._is_closed = False

    def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
        if self._is_closed:
            raise OutputError(f"{self._path} is closed: no picture can be added")
        image = _bgr(image)
        try:
            if self._stream is None:
                self._size_hw = self._size_hw or (image.shape[0], image.shape[1])
                self._begin(self._size_hw)
            self._encode(self._fitted(image), frame.time_s)
        except (av.error.FFmpegError, OSError) as error:
            self._give_up()
            raise self._failure(error) from error

    def close(self) -> None:
        if self._is_closed:
            return
        if self._container is None or self._stream is None:
            self.abort()
            return
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
        except (av.error.FFmpegError, OSError) as error:
            self._give_up()
            raise self._failure(error) from error
        self._is_closed = True
        self._place.close()

    def abort(self) -> None:
        if self._is_closed:
            return
        self._close_container()
        # Leaving with an exception makes `replacing` remove the temporary file.
        self._place.__exit__(_Aborted, _Aborted(), None)

    def _give_up(self) -> None:
        """Keep what was written of pictures that do not come again, and throw the rest away."""
        if self._is_live and self._temporary.stat().st_size > 0:
            self._close_container()
            if self._path.suffix.lower() != ".mkv":
                _cut_to_whole_pieces(self._temporary)
            self._place.close()
        else:
            self.abort()

    def _close_container(self) -> None:
        self._is_closed = True
        try:
            if self._container is not None:
                self._container.close()
        except (av.error.FFmpegError, OSError):
            pass  # what went wrong is known already, or the file goes away in any case

    def _begin(self, size_hw: tuple[int, int]) -> None:
        if max(size_hw) > _MAX_LENGTH:
            self.abort()
            message = f"cannot write {self._path}: H.264 ends at {_MAX_LENGTH} pixels, the picture is {size_hw[1]}×{size_hw[0]}"
            raise OutputError(message, hint="write pictures: a folder, or out_%04d.png")
        options = _IN_PIECES if self._is_live and self._path.suffix.lower() != ".mkv" else {}
        self._container = av.open(f"file:{self._temporary}", "w", options=options)
        rate = Fraction(self._fps).limit_denominator(100_000)
        stream = self._container.add_stream("libx264", rate=rate, options=_ENCODER)
        stream.height, stream.width = (length + length % 2 for length in size_hw)
        stream.pix_fmt = "yuv420p"
        stream.time_base = _TIME_BASE
        context = stream.codec_context
        context.thread_count = _threads()
        context.time_base = _TIME_BASE
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        self._stream = stream

    def _encode(self, image: NDArray[np.uint8], time_s: float) -> None:
        assert self._stream is not None
        assert self._container is not None
        picture = VideoFrame.from_numpy_buffer(image, format="bgr24")  # no copy
        picture = self._reformatter.reformat(
            picture, format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, threads=1
        )
        ticks = round(time_s / _TIME_BASE)
        if ticks <= self._ticks:
            ticks = self._ticks + round(1 / (_TIME_BASE * Fraction(self._fps)))
        picture.pts, picture.time_base = ticks, _TIME_BASE
        self._ticks = ticks
        self._container.mux(self._stream.encode(picture))

    def _fitted(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        assert self._size_hw is not None
        height, width = self._size_hw
        if image.shape[:2] != (height, width):
            scale = min(height / image.shape[0], width / image.shape[1])
            inner_hw = max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))
            interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            small = cv2.resize(image, inner_hw[::-1], interpolation=interpolation)
            top, left = (height - inner_hw[0]) // 2, (width - inner_hw[1]) // 2
            image = np.zeros((height, width, 3), np.uint8)
            image[top : top + inner_hw[0], left : left + inner_hw[1]] = small
        if height % 2 or width % 2:
            image = np.asarray(cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE), np.uint8)
        return image

    def _failure(self, error: Exception) -> OutputError:
        reason = getattr(error, "strerror", None) or type(error).__name__
        return OutputError(f"cannot write {self._path}: {reason}", hint="make room, or choose another place")


def _threads() -> int:
    """Half of the cores: whole pipelines run here, and an encoder that takes every core takes them from the network."""
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, num_cores // 2)


def _cut_to_whole_pieces(path: Path) -> None:
    """Cut an MP4 in pieces behind the last one that is whole: boxes of a length and a name each, ``mdat`` ending a piece."""
    length, at, whole = path.stat().st_size, 0, 0
    with open(path, "r+b") as file:
        while at + 8 <= length:
            file.seek(at)
            size, name = struct.unpack(">I4s", file.read(8))
            at += size
            if size < 8 or at > length:
                break
            if name in (b"moov", b"mdat"):
                whole = at
        file.truncate(whole)


class _Aborted(Exception):
    pass


def _bgr(image: NDArray[Any]) -> NDArray[np.uint8]:
    image = as_uint8(image)
    if image.ndim == 2:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)
    return composite(image) if image.shape[2] == 4 else np.ascontiguousarray(image)
