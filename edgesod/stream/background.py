"""What the effect ``replace`` puts behind the subject: a picture, or a video that plays along."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgesod.errors import InputError
from edgesod.processing.look import Background
from edgesod.processing.pictures import IMAGE_SUFFIXES, read_picture
from edgesod.stream.sources import open_source
from edgesod.stream.sources.options import SourceOptions
from edgesod.types import Frame

_MOST_SKIPPED = 8  # pictures a call: after a longer pause the video goes on from where it was
_CLOSE_S = 1e-3  # times are rounded, by files to their time base


class VideoBackground:
    """A video played again and again at its own pace, by the times of the frames it is put behind, for each source by itself.

    Args:
        path: The video.

    Raises:
        InputError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._players = {0: _Player(path)}

    def __call__(self, frame: Frame) -> NDArray[np.uint8]:
        """Return the picture of the frame's time, uint8 BGR ``(H, W, 3)`` in the video's size."""
        if frame.source not in self._players:
            self._players[frame.source] = _Player(self._path)
        return self._players[frame.source].at(frame.time_s)

    def close(self) -> None:
        """Let go of the file; safe to call twice."""
        for player in self._players.values():
            player.close()


class _Player:
    def __init__(self, path: Path) -> None:
        self._source = open_source(path, SourceOptions(loop=-1))
        self._frames = iter(self._source)
        self._shown = self._next = next(self._frames)
        self._ahead_s: float | None = None  # the video's time less the frames'

    def at(self, time_s: float) -> NDArray[np.uint8]:
        if self._ahead_s is None or time_s + self._ahead_s < self._shown.time_s:
            self._ahead_s = self._shown.time_s - time_s
        wanted_s = time_s + self._ahead_s
        for _ in range(_MOST_SKIPPED):
            if self._next.time_s > wanted_s + _CLOSE_S:
                break
            self._shown, self._next = self._next, next(self._frames)
        else:
            self._ahead_s = self._shown.time_s - time_s
        return self._shown.image

    def close(self) -> None:
        self._source.close()


def open_background(path: str | Path) -> Background:
    """Open a picture or a video for :class:`~edgesod.processing.look.Look`.

    Raises:
        InputError: It is missing, or neither a picture nor a video.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"a background is a picture or a video, {path} is a folder", hint="--background picture.jpg")
    return read_picture(path) if path.suffix.lower() in IMAGE_SUFFIXES else VideoBackground(path)
