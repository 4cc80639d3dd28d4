"""Stands in for ``cv2.VideoCapture`` as a camera that misbehaves, one way each time it is opened."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgesod.stream.sources import camera

Step = NDArray[np.uint8] | str | None
"""A picture, ``None`` for a read that fails, or ``"block"`` for one that does not come back."""


class StandInCamera:
    """A camera at OpenCV's interface.

    Args:
        openings: What the camera does each time it is opened: one step a read, then nothing but failing reads; ``None``
            where it cannot be opened, as after the last of them.
        seconds_per_read: How long a read takes.

    Attributes:
        asked: Properties that were set, in order.
        unblock: Ends the reads that block.
        num_open: Captures opened and not released.
    """

    def __init__(self, openings: Sequence[Sequence[Step] | None], seconds_per_read: float = 0.0) -> None:
        self.asked: list[tuple[int, float]] = []
        self.unblock = threading.Event()
        self.num_open = 0
        self._openings = iter(openings)
        self._seconds_per_read = seconds_per_read

    def __call__(self, number: int, backend: int) -> StandInCamera._Capture:
        return self._Capture(self, next(self._openings, None))

    class _Capture:
        def __init__(self, camera: StandInCamera, steps: Sequence[Step] | None) -> None:
            self._camera = camera
            self._is_open = steps is not None
            self._steps: Iterator[Step] = iter(steps or [])
            camera.num_open += self._is_open

        def isOpened(self) -> bool:  # noqa: N802
            return self._is_open

        def get(self, what: int) -> float:
            return {cv2.CAP_PROP_FPS: 30.0, cv2.CAP_PROP_FRAME_HEIGHT: 72.0, cv2.CAP_PROP_FRAME_WIDTH: 128.0}[what]

        def set(self, what: int, value: float) -> bool:
            self._camera.asked.append((what, value))
            return True

        def read(self) -> tuple[bool, Any]:
            assert self._is_open, "read after release"
            step = next(self._steps, None)
            self._camera.unblock.wait(60 if isinstance(step, str) else self._camera._seconds_per_read)
            return (False, None) if step is None or isinstance(step, str) else (True, step)

        def release(self) -> None:
            self._camera.num_open -= self._is_open
            self._is_open = False


def plug_in(monkeypatch: pytest.MonkeyPatch, stand_in: StandInCamera) -> StandInCamera:
    """Make it the only camera, read without pauses."""
    monkeypatch.setattr(camera.cv2, "VideoCapture", stand_in)
    monkeypatch.setattr(camera, "_PAUSE_S", 0.0)
    return stand_in
