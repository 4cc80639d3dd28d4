"""Picture files as frames, and the photographs that are always at hand: the one reader of every room."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.errors import InputError
from edgesod.processing.preprocess import as_bgr

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"))

PHOTOGRAPHS = ("cat", "coffee", "astronaut", "rocket")
"""Freely licensed ones that scikit-image carries, each with one clear subject."""


def read_picture(path: str | Path) -> NDArray[np.uint8]:
    """Read a picture file as uint8 BGR ``(H, W, 3)``, turned as its EXIF orientation asks.

    Grey becomes BGR, 16 bits become 8, transparency is dropped, by :func:`~edgesod.processing.preprocess.as_bgr`.

    Raises:
        InputError: It is missing, empty or broken.
    """
    try:
        content = Path(path).read_bytes()  # unlike cv2.imread, takes any path on every system
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    return decode_picture(content, str(path))


def decode_picture(content: bytes, name: str) -> NDArray[np.uint8]:
    """Decode the bytes of a picture file as :func:`read_picture` does; ``name`` is what an error calls it."""
    # IMREAD_UNCHANGED would keep the transparency that as_bgr drops, and leave the orientation out
    image = _decode(content, name, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    try:
        return as_bgr(image)
    except InputError as error:
        raise InputError(f"{name} cannot be used: {error}", hint=error.hint) from error


def decode_grey(content: bytes, name: str) -> NDArray[np.uint8]:
    """Decode the bytes of a mask or map to uint8 ``(H, W)``; errors as of :func:`decode_picture`."""
    return np.asarray(_decode(content, name, cv2.IMREAD_GRAYSCALE), np.uint8)


def list_pictures(folder: str | Path) -> list[Path]:
    """Return the picture files right in a folder, sorted by name.

    Raises:
        InputError: There is no such folder, or no picture in it.
    """
    folder = Path(folder)
    try:
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise InputError(f"cannot list {folder}: {error.strerror or error}") from error
    named = (path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."))
    found = [path for path in named if path.is_file()]
    if not found:
        raise InputError(f"{folder} holds no picture", hint=f"give a folder of {', '.join(sorted(IMAGE_SUFFIXES))} files")
    return found


def photograph(name: str = "coffee") -> NDArray[np.uint8]:
    """Return one of :data:`PHOTOGRAPHS`, uint8 BGR ``(H, W, 3)``."""
    from skimage import data

    return np.ascontiguousarray(getattr(data, name)()[:, :, ::-1])


def _decode(content: bytes, name: str, flags: int) -> NDArray[np.generic]:
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    except cv2.error as error:
        raise InputError(f"{name} cannot be decoded as a picture: {error.err}") from error
    if image is None:
        seen = "it is broken, or of a kind OpenCV does not know" if content else "the file is empty"
        raise InputError(f"{name} cannot be decoded as a picture: {seen}", hint="copy the file again, or remove it")
    return np.asarray(image)
