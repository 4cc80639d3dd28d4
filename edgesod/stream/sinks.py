"""Open a sink by the name a person types; sinks for still pictures, and for nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.errors import OutputError, UsageError
from edgesod.files import write_atomically
from edgesod.processing.effects import composite
from edgesod.processing.pictures import IMAGE_SUFFIXES
from edgesod.stream.base import Sink, as_uint8
from edgesod.stream.uri import (
    SINKS,
    VIDEO_SUFFIXES,
    check_slashes,
    is_sequence,
    redacted,
    scheme_of,
    sequence_name,
)
from edgesod.types import Frame, Result

_OPAQUE_SUFFIXES = frozenset((".jpg", ".jpeg", ".bmp"))


def open_sink(
    target: str | os.PathLike[str],
    *,
    fps: float | None = None,
    size_hw: tuple[int, int] | None = None,
    is_live: bool = False,
) -> Sink:
    """Open a video file, picture, folder or numbered sequence for writing, or something that is no file.

    Args:
        target: The suffix decides; without one it is a folder. ``file://`` may stand before a path. ``-`` is raw pictures on
            standard output, ``ring://NAME`` masks in shared memory, ``rtsp://HOST/NAME`` a stream of a server's,
            ``display://0`` a window, ``null`` keeps nothing.
        fps: Nominal pictures per second of a video; ``None`` means 25. Only pictures without times of their own are paced
            by it, the others keep theirs.
        size_hw: Height and width of a video in pixels; ``None`` takes the first picture's.
        is_live: Whether a video is of pictures that do not come again (:class:`~edgesod.stream.video_sink.VideoSink`).

    Returns:
        The sink; use it in a ``with`` statement.

    Raises:
        OutputError: The place cannot be written, or no server answers.
        UsageError: A scheme or suffix that is not one of these.
        BackendError: A window where there is no screen.
    """
    target = os.fspath(target)
    check_slashes(target)
    scheme = scheme_of(target)
    if target in ("null", "null://"):
        return NullSink()
    if target == "-":
        from edgesod.stream.pipe_sink import PipeSink

        return PipeSink()
    if scheme == "ring":
        from edgesod.stream.ring import RingSink

        return RingSink(target.removeprefix("ring://"))
    if target == "display://0":
        from edgesod.stream.window_sink import WindowSink

        return WindowSink()
    if scheme == "rtsp":
        from edgesod.stream.rtsp_sink import RtspSink

        return RtspSink(target, fps=fps)
    if scheme not in ("", "file") or target in ("", "file://"):
        raise UsageError(f"{redacted(target) or 'nothing'} is not a sink", hint=f"one of: {SINKS}")
    path = Path(target.removeprefix("file://"))
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES and not path.is_dir():
        from edgesod.stream.video_sink import VideoSink

        return VideoSink(path, fps=fps, size_hw=size_hw, is_live=is_live)
    if suffix in IMAGE_SUFFIXES and not path.is_dir():
        return PictureSink(path)
    if path.is_dir() or not suffix or target.endswith(("/", os.sep)):
        return FolderSink(path)
    raise UsageError(f"{redacted(str(path))}: the suffix {suffix} says neither video nor picture", hint=f"one of: {SINKS}")


class PictureSink(Sink):
    """One picture file, or, where its name holds a number pattern, one for each frame, numbered from 0."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._num_written = 0
        _make_folder(path.parent)

    def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
        path = self._path
        if is_sequence(path.name):
            path = path.with_name(sequence_name(path.name, self._num_written))
        elif self._num_written:
            hint = f"give a video, a folder or a pattern such as {path.stem}_%04d{path.suffix}"
            raise OutputError(f"{path} holds one picture, and a second one came", hint=hint)
        write_picture(path, image)
        self._num_written += 1


class FolderSink(Sink):
    """A folder that gets one PNG for each frame, named after the frame's file, or numbered where it comes from a video."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._folder = folder
        self._stems: set[str] = set()
        _make_folder(folder)

    def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
        source = Path(frame.name)
        stem = f"{frame.index:06d}"
        if source.suffix.lower() in IMAGE_SUFFIXES:
            # cat.jpg and cat.png may lie in one folder: the second keeps its suffix in the name.
            stem = source.name if source.stem in self._stems else source.stem
            self._stems.add(stem)
        write_picture(self._folder / f"{stem}.png", image)


class NullSink(Sink):
    """Takes every picture and keeps none, for measuring."""

    name = "null"
    wants_picture = False

    def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
        as_uint8(image)


def write_picture(path: Path, image: NDArray[Any]) -> None:
    """Write a picture, whole or not at all; the suffix gives the format.

    Args:
        path: Ends in a picture suffix.
        image: uint8 BGR ``(H, W, 3)``, BGRA ``(H, W, 4)`` or grey ``(H, W)``. BGRA is put on a plain background where the
            format has no transparency.

    Raises:
        OutputError: It cannot be encoded or written.
    """
    image = as_uint8(image)
    suffix = path.suffix.lower()
    if suffix in _OPAQUE_SUFFIXES and image.ndim == 3 and image.shape[2] == 4:
        image = composite(image)
    try:
        is_encoded, content = cv2.imencode(suffix, image)
    except cv2.error as error:
        raise OutputError(f"{path} cannot be encoded: {error.err}", hint="choose another format, such as .png") from error
    if not is_encoded:
        raise OutputError(f"{path} cannot be encoded", hint="choose another format, such as .png")
    write_atomically(path, np.asarray(content).tobytes())


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}", hint="choose another place") from error
