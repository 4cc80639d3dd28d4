"""Cameras on this machine, through OpenCV."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from edgesod.errors import InputError, SourceLost
from edgesod.stream.base import Source
from edgesod.types import Frame

_TRIES = 10
_PAUSE_S = 0.05
_CLOSE_WAIT_S = 1.0


class CameraSource(Source):
    """A camera by number.

    Args:
        number: As the operating system counts them: ``0`` is ``/dev/video0`` on Linux.

    Raises:
        InputError: There is no such camera, or another program holds it.
    """

    is_live = True

    def __init__(self, number: int) -> None:
        self.name = f"camera {number}"
        # Only V4L2 is asked on Linux: with any backend allowed, OpenCV tries FFmpeg and depth cameras too, at some length.
        backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
        self._capture = cv2.VideoCapture(number, backend)
        self._reading = threading.Lock()
        self._is_closed = False
        if not self._capture.isOpened():
            self._capture.release()
            raise InputError(f"{self.name} cannot be opened", hint=_cameras_here())
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS)) or None
        height, width = (int(self._capture.get(what)) for what in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
        self.size_hw = (height, width) if height and width else None

    def __iter__(self) -> Iterator[Frame]:
        index, misses, start_s = 0, 0, 0.0
        while True:
            with self._reading:
                if self._is_closed:
                    return
                is_read, image = self._capture.read()
                now_s = time.perf_counter()
                if self._is_closed:
                    self._capture.release()
                    return
            if not is_read or image is None:
                misses += 1
                if misses == _TRIES:
                    seen = f"after {index} frames" if index else "and never did"
                    raise SourceLost(f"{self.name} no longer delivers, {seen}", hint="check its cable, then start again")
                time.sleep(_PAUSE_S)
                continue
            if index == 0:
                start_s = now_s
            misses = 0
            yield Frame(np.asarray(image, np.uint8), index, now_s - start_s, self.name, now_s)
            index += 1

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        # A driver may never come back from a read, and releasing under it crashes; the reader then releases, if ever.
        if self._reading.acquire(timeout=_CLOSE_WAIT_S):
            self._capture.release()
            self._reading.release()


def camera_number(uri: str) -> int | None:
    """Return the number that ``0``, ``camera:0``, ``v4l2:///dev/video0`` or ``/dev/video0`` names, else ``None``.

    Raises:
        InputError: A ``v4l2://`` path that is not a video device.
    """
    if found := re.fullmatch(r"(?:camera:)?(\d+)", uri):
        return int(found[1])
    is_v4l2 = uri.startswith("v4l2://")
    path = uri.removeprefix("v4l2://")
    if not is_v4l2 and not path.startswith(("/dev/video", "/dev/v4l/")):
        return None
    # Names under /dev/v4l/by-id are links to /dev/videoN.
    if found := re.fullmatch(r"/dev/video(\d+)", str(Path(path).resolve())):
        return int(found[1])
    raise InputError(f"{path} is not a video device", hint=_cameras_here())


def _cameras_here() -> str:
    devices = sorted(str(path) for path in Path("/dev").glob("video*"))
    return f"devices here: {', '.join(devices)}" if devices else "no camera is connected to this machine"
