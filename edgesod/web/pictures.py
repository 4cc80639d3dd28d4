"""The pictures a page shows: the newest one, made into a JPEG once, and only when somebody waits for it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.buffers import POOL
from edgesod.processing.effects import composite
from edgesod.stream.base import as_uint8
from edgesod.web.newest import Ended, Newest

BOUNDARY = "edgesod-picture"
STREAM_TYPE = f"multipart/x-mixed-replace; boundary={BOUNDARY}"

_SHORTEST_PERIOD_S = 1 / 45
"""No screen on the other side of a network shows more than 30 or 40 pictures a second."""
_IDLE_PERIOD_S = 1.0
_LONGEST_SIDE = 1280
_JPEG_QUALITY = 80
_BACKDROP_BGR = (58, 52, 48)
_SNAPSHOT_WAIT_S = 1.5


class Pictures:
    """What the pipeline draws, on its way to any number of viewers.

    Attributes:
        num_encoded: JPEGs made so far.
    """

    def __init__(self) -> None:
        self.num_encoded = 0
        self._newest: Newest[NDArray[np.uint8]] = Newest()
        self._put_at_s = -math.inf
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="edgesod-page-encoder")
        self._encoding: tuple[int, asyncio.Future[bytes]] | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Name the loop the viewers are served in."""
        self._newest.attach(loop)

    def is_due(self) -> bool:
        """Tell whether a picture is worth taking now: one a second while nobody waits for any, so that the last is never old."""
        period_s = _SHORTEST_PERIOD_S if self._newest.num_waiting else _IDLE_PERIOD_S
        return time.monotonic() - self._put_at_s >= period_s

    def put(self, image: NDArray[Any]) -> None:
        """Copy a picture, uint8 BGR ``(H, W, 3)``, BGRA ``(H, W, 4)`` or grey ``(H, W)``; never waits for a viewer."""
        copy = POOL.empty(as_uint8(image).shape)
        np.copyto(copy, image)
        self._put_at_s = time.monotonic()
        self._newest.put(copy)

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the body of a ``multipart/x-mixed-replace`` answer until no more pictures come."""
        number = 0
        # each picture is followed by the next one's boundary at once: browsers show a part when they see where it ends
        yield f"--{BOUNDARY}\r\n".encode()
        while True:
            yield b""  # returns once the client has taken what was sent: only then is it worth choosing the newest
            try:
                number, jpeg = await self._jpeg_after(number)
            except Ended:
                return
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            yield b"".join((head.encode(), jpeg, f"\r\n--{BOUNDARY}\r\n".encode()))

    async def snapshot(self) -> bytes | None:
        """Return the picture of this moment at full size as a PNG, a cutout with its transparency; ``None`` before the first."""
        number, image = self._newest.last()
        with suppress(Ended, asyncio.TimeoutError):  # where no more pictures come, the last one is the present one
            _, image = await asyncio.wait_for(self._newest.after(number), _SNAPSHOT_WAIT_S)
        if image is None:
            return None
        return await asyncio.get_running_loop().run_in_executor(self._encoder, _encode, ".png", image)

    def end(self) -> None:
        """Say that no more pictures come, which ends every stream; safe to call twice."""
        self._newest.end()

    def close(self) -> None:
        """Let go of the thread, once nobody is served any more; safe to call twice."""
        self._encoder.shutdown()

    async def _jpeg_after(self, number: int) -> tuple[int, bytes]:
        newest, image = await self._newest.after(number)
        if self._encoding is None or self._encoding[0] != newest:
            loop = asyncio.get_running_loop()
            self._encoding = newest, loop.run_in_executor(self._encoder, _encode, ".jpg", image)
            self.num_encoded += 1
        # shielded: a viewer that leaves must not take the picture away from the others
        return newest, await asyncio.shield(self._encoding[1])


def _encode(suffix: str, image: NDArray[np.uint8]) -> bytes:
    options: tuple[int, ...] = ()
    if suffix == ".jpg":
        image, options = _for_screen(image), (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY)
    _, content = cv2.imencode(suffix, image, options)
    return np.asarray(content).tobytes()


def _for_screen(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture no larger than a page shows it, without transparency."""
    height, width = image.shape[:2]
    scale = _LONGEST_SIDE / max(height, width)
    if scale < 1:
        size_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.asarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA), np.uint8)
    return composite(image, _BACKDROP_BGR) if image.ndim == 3 and image.shape[2] == 4 else image
