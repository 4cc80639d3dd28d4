"""Still pictures: one, a folder of them, or a numbered sequence."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.errors import InputError
from edgesod.processing.preprocess import as_bgr
from edgesod.stream.base import Source
from edgesod.stream.uri import IMAGE_SUFFIXES, sequence_regex
from edgesod.types import Frame


class PicturesSource(Source):
    """Picture files, in the order given; each is read when its turn comes.

    Args:
        paths: At least one.
        name: What messages call the whole of it.
    """

    def __init__(self, paths: Sequence[Path], name: str) -> None:
        self.name = name
        self.num_frames = len(paths)
        self._paths = paths

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self._paths):
            image = read_picture(path)
            yield Frame(image, index, 0.0, path.name, time.perf_counter())

    @classmethod
    def from_folder(cls, folder: Path) -> PicturesSource:
        """Take the pictures of a folder, sorted by name; folders within are left out.

        Raises:
            InputError: There is none.
        """
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
        if not paths:
            raise InputError(f"{folder} holds no picture ({', '.join(sorted(IMAGE_SUFFIXES))})")
        return cls(paths, str(folder))

    @classmethod
    def from_sequence(cls, pattern: Path) -> PicturesSource:
        """Take the files that a pattern such as ``img_%04d.png`` names, sorted by number; gaps are passed over.

        Raises:
            InputError: There is none.
        """
        regex = sequence_regex(pattern.name)
        names = [path.name for path in pattern.parent.iterdir()] if pattern.parent.is_dir() else []
        numbered = sorted((int(found[1]), name) for name in names if (found := regex.fullmatch(name)))
        if not numbered:
            raise InputError(f"no file matches {pattern}")
        return cls([pattern.parent / name for _, name in numbered], str(pattern))


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read a picture file as uint8 BGR ``(H, W, 3)``, turned as its EXIF orientation asks.

    Grey becomes BGR, 16 bits become 8, transparency is dropped, by :func:`~edgesod.processing.preprocess.as_bgr`.

    Raises:
        InputError: It is missing, empty or broken.
    """
    try:
        content = np.fromfile(path, np.uint8)  # unlike cv2.imread, takes any path on every system
        # IMREAD_UNCHANGED would keep the transparency that as_bgr drops, and leave the orientation out.
        image = cv2.imdecode(content, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if content.size else None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except cv2.error as error:
        raise InputError(f"{path} cannot be read as a picture: {error.err}") from error
    if image is None:
        seen = "the file is empty" if content.size == 0 else "it is broken, or of a kind OpenCV does not know"
        raise InputError(f"{path} cannot be read as a picture: {seen}")
    try:
        return as_bgr(image)
    except InputError as error:
        raise InputError(f"{path} cannot be used: {error}", hint=error.hint) from error
