"""A window on this machine's own screen."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import cv2
from numpy.typing import NDArray

from edgesod.errors import BackendError
from edgesod.processing.effects import composite
from edgesod.stream.base import Sink, as_uint8
from edgesod.types import Frame, Result

_TITLE = "edgesod"
_TRY = "import cv2; cv2.namedWindow('edgesod'); cv2.waitKey(1)"
_TRY_WITHIN_S = 20


class WindowSink(Sink):
    """Shows every picture; opened and closed by the thread that writes, as window systems want it.

    Raises:
        BackendError: There is no screen, or this OpenCV has no windows.
    """

    name = "window"

    def __init__(self) -> None:
        # In a process of its own, because OpenCV's Qt ends the process that has no screen instead of saying so.
        try:
            tried = subprocess.run([sys.executable, "-c", _TRY], capture_output=True, timeout=_TRY_WITHIN_S, check=False)
            has_window = tried.returncode == 0
        except subprocess.TimeoutExpired:
            has_window = False
        if not has_window:
            raise BackendError("no window can be opened here: no screen, or an OpenCV without windows", hint="--web :8080")
        self._is_open = False

    def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
        """See :meth:`Sink.write`."""
        image = as_uint8(image)
        if image.ndim == 3 and image.shape[2] == 4:
            image = composite(image)
        self._is_open = True
        cv2.imshow(_TITLE, image)
        cv2.waitKey(1)

    def close(self) -> None:
        """See :meth:`Sink.close`."""
        if self._is_open:
            self._is_open = False
            cv2.destroyWindow(_TITLE)

    def abort(self) -> None:
        """See :meth:`Sink.abort`."""
        self.close()
