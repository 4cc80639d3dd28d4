"""Cameras on this machine, through OpenCV."""

from __future__ import annotations

import math
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgesod.errors import InputError, SourceLost
from edgesod.stream.sources.guarded import GuardedSource
from edgesod.stream.sources.options import LIVE, SourceOptions, check_options
from edgesod.types import Frame

CAMERA = frozenset(("width", "height", "rate", "format")) | LIVE
"""The options a camera takes."""

_TRIES = 10
_PAUSE_S = 0.05
_FOURCC = {"mjpeg": "MJPG", "yuyv": "YUYV", "uyvy": "UYVY", "nv12": "NV12"}


class CameraSource(GuardedSource):
    """What OpenCV captures from, live: a camera by number, or a GStreamer pipeline.

    Frames keep coming when their size changes. A read that fails ten times in a row, or brings nothing within the read
    time-out, is a loss; a read that never comes back cannot be ended from here, and is for whoever waits to notice.

    Args:
        which: The number as the operating system counts them (``0`` is ``/dev/video0`` on Linux), or a pipeline.
        options: Size, rate and format asked for; a camera delivers the nearest it has.
        name: What messages call it; ``camera N`` if empty.
        hint: What to do when it cannot be opened; the devices here if empty.

    Raises:
        InputError: There is no such camera, or another program holds it.
        UsageError: An option that means nothing to a camera.
    """

    is_live = True

    def __init__(self, which: int | str, options: SourceOptions | None = None, *, name: str = "", hint: str = "") -> None:
        super().__init__()
        self.name = name or f"camera {which}"
        self._options = options or SourceOptions()
        if isinstance(which, int):
            check_options(self._options, "a camera", CAMERA)
            # OpenCV's V4L2 waits 10 s for a frame unless the first camera of a process finds this, in whole seconds.
            os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(math.ceil(self._options.read_timeout_s)))
        self._capture = cv2.VideoCapture(which, _backend(which))
        if not self._capture.isOpened():
            self._capture.release()
            raise InputError(f"{self.name} cannot be opened", hint=hint or _cameras_here())
        if isinstance(which, int):
            self._ask()
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS)) or None
        height, width = (int(self._capture.get(what)) for what in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
        self.size_hw = (height, width) if height and width else None

    def __iter__(self) -> Iterator[Frame]:
        index, misses, start_s, last_s = 0, 0, 0.0, time.perf_counter()
        while True:
            with self._turn() as is_open:
                is_read, image = self._capture.read() if is_open else (False, None)
            if self._is_closed:
                return
            now_s = time.perf_counter()
            if not is_read or image is None:
                misses += 1
                if misses == _TRIES or now_s - last_s > self._options.read_timeout_s:
                    seen = f"after {index} frames" if index else "and never did"
                    raise SourceLost(f"{self.name} no longer delivers, {seen}", hint="check its cable, then start again")
                time.sleep(_PAUSE_S)
                continue
            if index == 0:
                start_s = now_s
            misses = 0
            self.size_hw = (image.shape[0], image.shape[1])
            yield Frame(np.asarray(image, np.uint8), index, now_s - start_s, self.name, now_s)
            index += 1
            last_s = time.perf_counter()

    def _ask(self) -> None:
        """Ask for a format, then a size and a rate; the drivers heed them in this order only."""
        options = self._options
        if options.format:
            self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*_FOURCC[options.format]))
        wanted: list[tuple[int, Any]] = [
            (cv2.CAP_PROP_FRAME_WIDTH, options.width),
            (cv2.CAP_PROP_FRAME_HEIGHT, options.height),
            (cv2.CAP_PROP_FPS, options.rate),
        ]
        for what, value in wanted:
            if value is not None:
                self._capture.set(what, value)

    def _release(self) -> None:
        self._capture.release()


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


def _backend(which: int | str) -> int:
    if isinstance(which, str):
        return cv2.CAP_GSTREAMER
    # Only V4L2 is asked on Linux: with any backend allowed, OpenCV tries FFmpeg and depth cameras too, at some length.
    return cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY


def _cameras_here() -> str:
    devices = sorted(str(path) for path in Path("/dev").glob("video*"))
    return f"devices here: {', '.join(devices)}" if devices else "no camera is connected to this machine"
