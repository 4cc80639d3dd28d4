"""A clip anybody may make and use: a camera moving over four photographs that scikit-image carries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.processing.pictures import PHOTOGRAPHS, photograph
from edgesod.stream.sinks import open_sink
from edgesod.types import Frame

# Camera windows per photograph, start and end: centre x and y and width, as shares of the picture's size.
_MOVES = {
    "cat": ((0.50, 0.50, 1.00), (0.45, 0.48, 0.90)),
    "coffee": ((0.46, 0.50, 1.00), (0.54, 0.48, 0.82)),
    "astronaut": ((0.50, 0.34, 1.00), (0.46, 0.32, 0.85)),
    "rocket": ((0.50, 0.55, 1.00), (0.52, 0.50, 0.80)),
}


def write_tour(path: str | Path, *, seconds: float = 8.0, fps: int = 25, size_wh: tuple[int, int] = (720, 480)) -> None:
    """Write the clip as H.264.

    Args:
        path: The ``.mp4`` to write.
        seconds: Length; each photograph has a quarter of it.
        fps: Frames a second.
        size_wh: Width and height in pixels.

    Raises:
        OutputError: The file could not be written.
    """
    with open_sink(str(path), fps=fps) as sink:
        for index, image in enumerate(tour_frames(max(4, round(seconds * fps)), size_wh)):
            sink.write(image, Frame(image, index=index, time_s=index / fps))


def tour_frames(num_frames: int, size_wh: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """Yield the clip's frames, uint8 BGR ``(H, W, 3)``."""
    shares = np.array_split(np.arange(num_frames), len(PHOTOGRAPHS))
    for name, share in zip(PHOTOGRAPHS, shares, strict=True):
        picture = photograph(name)
        start, end = (np.array(window) for window in _MOVES[name])
        for k in range(len(share)):
            t = k / max(1, len(share) - 1)
            yield _view(picture, start + (end - start) * (3 - 2 * t) * t * t, size_wh)  # eases in and out


def _view(picture: NDArray[np.uint8], window: NDArray[np.float64], size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """Return what a camera sees whose window is centre x, y and width as shares of the picture, kept inside it."""
    height, width = picture.shape[:2]
    w = min(window[2] * width, height * size_wh[0] / size_wh[1])
    h = w * size_wh[1] / size_wh[0]
    left = min(max(window[0] * width - w / 2, 0), width - w)
    top = min(max(window[1] * height - h / 2, 0), height - h)
    scale = size_wh[0] / w
    matrix = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    view = cv2.warpAffine(picture, matrix, size_wh, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(view, np.uint8)
