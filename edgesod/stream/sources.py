"""Open a source by the name a person types."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from edgesod.errors import InputError, UsageError
from edgesod.processing.pictures import IMAGE_SUFFIXES
from edgesod.stream.base import Source
from edgesod.stream.camera import CameraSource, camera_number
from edgesod.stream.pictures import PicturesSource
from edgesod.stream.uri import SOURCES, is_sequence, redacted, scheme_of


def open_source(uri: str | os.PathLike[str]) -> Source:
    """Open a camera, video, stream, picture or folder of pictures.

    Args:
        uri: ``0``, ``camera:0`` or ``v4l2:///dev/video0`` for a camera; ``rtsp://…`` or ``http://…``; a video file, a
            picture, a folder of pictures (sorted by name) or a sequence such as ``img_%04d.png``; ``file://`` may
            stand before a path. A path object is always a path.

    Returns:
        The source, open; use it in a ``with`` statement.

    Raises:
        InputError: It is missing or cannot be read.
        UsageError: A scheme that is not one of these.
    """
    if isinstance(uri, str):
        number = camera_number(uri)
        if number is not None:
            return CameraSource(number)
        scheme = scheme_of(uri)
        if scheme in ("rtsp", "rtsps", "http", "https"):
            from edgesod.stream.video import VideoSource

            return VideoSource(uri)
        if scheme not in ("", "file"):
            raise UsageError(f"{redacted(uri)}: no source has the scheme {scheme}://", hint=f"one of: {SOURCES}")
        uri = uri.removeprefix("file://")
        if not uri:
            raise UsageError("the source is empty", hint=f"one of: {SOURCES}")
    return _open_path(Path(uri))


def _open_path(path: Path) -> Source:
    try:
        if path.is_dir():
            return PicturesSource.from_folder(path)
        if not path.exists():
            if is_sequence(path.name):
                return PicturesSource.from_sequence(path)
            raise InputError(f"{path} does not exist", hint=_nearby(path))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return PicturesSource([path], str(path))
    from edgesod.stream.video import VideoSource

    return VideoSource(path)


def _nearby(path: Path) -> str:
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    missing = path.relative_to(folder).parts[0] if path != folder else path.name
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    if close := difflib.get_close_matches(missing, names, n=3):
        return f"did you mean {' or '.join(str(folder / name) for name in close)}?"
    listed = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return f"{folder} holds: {listed}" if names else f"{folder} is empty"
