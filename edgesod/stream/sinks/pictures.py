"""Sinks for still pictures: one file, a numbered sequence, a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.errors import OutputError
from edgesod.files import write_atomically
from edgesod.processing.effects import composite
from edgesod.processing.pictures import IMAGE_SUFFIXES
from edgesod.stream.base import Sink, as_uint8
from edgesod.stream.uri import is_sequence, sequence_name
from edgesod.types import Frame, Result

_OPAQUE_SUFFIXES = frozenset((".jpg", ".jpeg", ".bmp"))


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
