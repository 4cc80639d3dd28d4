"""Small real videos, made with PyAV directly and not with what is tested, whose frames carry their number in the picture."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from skimage import data

from edgesod.types import Frame

TICK = Fraction(1, 90_000)
_BITS = 10
_BLOCK = 8


def pictures(num: int, size_hw: tuple[int, int] = (72, 128)) -> list[NDArray[np.uint8]]:
    """Return uint8 BGR pictures ``(H, W, 3)``: a camera moving over a photograph, each stamped with its number."""
    height, width = size_hw
    photograph = cv2.cvtColor(data.coffee(), cv2.COLOR_RGB2BGR)
    found = []
    for k in range(num):
        window = photograph[k % 100 : k % 100 + 280, 2 * (k % 100) : 2 * (k % 100) + 380]
        found.append(stamped(cv2.resize(window, (width, height), interpolation=cv2.INTER_AREA), k))
    return found


def stamped(image: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """Write ``number`` into the top rows as black and white blocks, which survive coding; return ``image``."""
    for bit in range(_BITS):
        image[:_BLOCK, bit * _BLOCK : (bit + 1) * _BLOCK] = 255 if number >> bit & 1 else 0
    return image


def stamp_of(image: NDArray[np.uint8]) -> int:
    """Read the number that :func:`stamped` wrote."""
    rows = image[2 : _BLOCK - 2, : _BITS * _BLOCK].astype(float)
    means = rows.reshape(rows.shape[0], _BITS, _BLOCK, -1)[:, :, 2:-2].mean(axis=(0, 2, 3))
    return sum(1 << bit for bit, mean in enumerate(means) if mean > 127)


def write_clip(
    path: Path,
    images: Sequence[NDArray[np.uint8]],
    *,
    times_s: Iterable[float] | None = None,
    rotation: int = 0,
    keyframe_every: int = 250,
) -> Path:
    """Write H.264 with its index up front, 25 frames a second unless ``times_s`` says when each comes; return ``path``."""
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream: Any = container.add_stream(
            "libx264", rate=25, options={"preset": "ultrafast", "crf": "16", "g": str(keyframe_every)}
        )
        stream.height, stream.width, stream.pix_fmt = *images[0].shape[:2], "yuv420p"
        stream.time_base = stream.codec_context.time_base = TICK
        if rotation:
            stream.set_display_rotation(rotation)
        for image, time_s in zip(images, times_s or (k / 25 for k in range(len(images))), strict=False):
            frame = VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = round(time_s / TICK), TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def presentation_times(path: Path) -> list[float]:
    """Return every frame's time in seconds, in order, as PyAV reads it."""
    with av.open(str(path)) as container:
        return [float(frame.time) for frame in container.decode(video=0) if frame.time is not None]


def gather(source: Iterable[Frame], frames: list[Frame]) -> None:
    """Add to ``frames`` what a source yields; they stay there when it raises."""
    for frame in source:
        frames.append(frame)


def shared_clip(name: str) -> Path:
    """Return a real clip's path, or skip the test where the clips are absent."""
    root = Path(__file__).parents[2]
    path = Path(os.environ.get("EDGESOD_CLIPS", root.parent / "shared" / "clips")) / name
    if not path.is_file():
        pytest.skip(f"{name} is absent")
    return path


class FakeCapture:
    """Stands in for ``cv2.VideoCapture``: delivers ``num_frames`` pictures, then nothing, or blocks until released.

    Args:
        num_frames: Pictures delivered before it fails.
        gate: Waited for before every picture, to decide when the camera delivers; ``None`` delivers at once.
        blocks: After the last picture, ``read`` never returns until ``unblock`` is set.
        is_open: What ``isOpened`` says.
    """

    def __init__(
        self, num_frames: int = 0, *, gate: threading.Semaphore | None = None, blocks: bool = False, is_open: bool = True
    ) -> None:
        self.num_released = 0
        self.released = threading.Event()
        self.unblock = threading.Event()
        self._images = iter(pictures(num_frames))
        self._gate = gate
        self._blocks = blocks
        self._is_open = is_open

    def isOpened(self) -> bool:  # noqa: N802
        return self._is_open

    def get(self, what: int) -> float:
        return {cv2.CAP_PROP_FPS: 30.0, cv2.CAP_PROP_FRAME_HEIGHT: 72.0, cv2.CAP_PROP_FRAME_WIDTH: 128.0}[what]

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        if self._gate is not None:
            self._gate.acquire()
        image = next(self._images, None)
        if image is None and self._blocks:
            self.unblock.wait(30)
        return image is not None, image

    def release(self) -> None:
        self.num_released += 1
        self.released.set()
