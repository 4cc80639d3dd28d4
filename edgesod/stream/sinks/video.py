"""Write H.264 video files, through PyAV."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import av
import av.error
from av.container import OutputContainer
from numpy.typing import NDArray

from edgesod.errors import OutputError
from edgesod.files import Replacement
from edgesod.stream.base import Sink, as_bgr
from edgesod.stream.sinks.h264 import DEFAULT_FPS, MAX_LENGTH, H264Stream
from edgesod.types import Frame, Result

_ENCODER = {"crf": "20"}
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
        self._file = Replacement(path)
        self._container: OutputContainer | None = None
        self._stream: H264Stream | None = None
        self._is_closed = False

    def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
        if self._is_closed:
            raise OutputError(f"{self._path} is closed: no picture can be added")
        image = as_bgr(image)
        try:
            if self._container is None or self._stream is None:
                self._container, self._stream = self._begin(self._size_hw or (image.shape[0], image.shape[1]))
            self._container.mux(self._stream.encode(image, frame.time_s))
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
            self._container.mux(self._stream.finish())
            self._container.close()
        except (av.error.FFmpegError, OSError) as error:
            self._give_up()
            raise self._failure(error) from error
        self._is_closed = True
        self._file.keep()

    def abort(self) -> None:
        if self._is_closed:
            return
        self._close_container()
        self._file.discard()

    def _give_up(self) -> None:
        """Keep what was written of pictures that do not come again, and throw the rest away."""
        if self._is_live and self._file.path.stat().st_size > 0:
            self._close_container()
            if self._path.suffix.lower() != ".mkv":
                _cut_to_whole_pieces(self._file.path)
            self._file.keep()
        else:
            self.abort()

    def _close_container(self) -> None:
        self._is_closed = True
        try:
            if self._container is not None:
                self._container.close()
        except (av.error.FFmpegError, OSError):
            pass  # what went wrong is known already, or the file goes away in any case

    def _begin(self, size_hw: tuple[int, int]) -> tuple[OutputContainer, H264Stream]:
        if max(size_hw) > MAX_LENGTH:
            self.abort()
            message = f"cannot write {self._path}: H.264 ends at {MAX_LENGTH} pixels, the picture is {size_hw[1]}×{size_hw[0]}"
            raise OutputError(message, hint="write pictures: a folder, or out_%04d.png")
        options = _IN_PIECES if self._is_live and self._path.suffix.lower() != ".mkv" else {}
        container = av.open(f"file:{self._file.path}", "w", options=options)
        return container, H264Stream(container, size_hw, self._fps, _ENCODER)

    def _failure(self, error: Exception) -> OutputError:
        reason = getattr(error, "strerror", None) or type(error).__name__
        return OutputError(f"cannot write {self._path}: {reason}", hint="make room, or choose another place")


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
