"""A window on this machine's own screen."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from typing import Any

import cv2
from numpy.typing import NDArray

from edgesod.errors import BackendError
from edgesod.stream.base import Sink, as_bgr
from edgesod.types import Frame, Result

_TITLE = "edgesod"
_TRY = "import cv2; cv2.namedWindow('edgesod'); cv2.waitKey(1)"
_TRY_WITHIN_S = 20
_END_KEYS = frozenset((ord("q"), ord("Q"), 27))
"""And Escape, 27."""


class WindowSink(Sink):
    """Shows every picture; opened and closed by the thread that writes, as window systems want it.

    ``q``, Escape and closing the window end the run as Ctrl-C does.

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
        # pip's OpenCV brings Qt without fonts, and Qt says so several times; nothing is written in this window.
        os.environ.setdefault("QT_LOGGING_RULES", "default.warning=false")

    def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
        """See :meth:`Sink.write`."""
        image = as_bgr(image)
        if self.is_done:
            return
        self.is_done = self._is_open and not _is_visible()
        if not self.is_done:
            if not self._is_open:
                cv2.namedWindow(_TITLE, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)  # without Qt's row of buttons
            self._is_open = True
            cv2.imshow(_TITLE, image)
            self.is_done = cv2.waitKey(1) & 0xFF in _END_KEYS

    def close(self) -> None:
        """See :meth:`Sink.close`."""
        if self._is_open:
            self._is_open = False
            with suppress(cv2.error):  # somebody closed it
                cv2.destroyWindow(_TITLE)

    def abort(self) -> None:
        """See :meth:`Sink.abort`."""
        self.close()


def _is_visible() -> bool:
    try:
        return cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) > 0
    except cv2.error:
        return False
