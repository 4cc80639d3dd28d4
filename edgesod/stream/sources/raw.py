"""Raw pictures from a pipe: what another program writes to standard input, or GStreamer to its standard output."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgesod.errors import InputError, UsageError
from edgesod.stream.base import Source
from edgesod.stream.sources.options import SourceOptions, check_options
from edgesod.types import Frame

_LOOK_S = 0.1
_HINT = "- --source-options width=640,height=480"


class RawSource(Source):
    """BGR pictures without a header, one after the other, from a file descriptor; every one of them is kept.

    Args:
        options: ``width`` and ``height``, which must be there, and ``rate``, from which times are made (25).
        descriptor: Where to read; 0 is standard input. It is not closed.

    Raises:
        UsageError: The size is not given, or somebody's keyboard is at the other end.
    """

    def __init__(self, options: SourceOptions | None = None, *, descriptor: int = 0) -> None:
        options = options or SourceOptions()
        self.name = "standard input" if descriptor == 0 else f"pipe {descriptor}"
        check_options(options, "-", frozenset(("width", "height", "rate")))
        if options.width is None or options.height is None:
            raise UsageError("raw pictures do not say how large they are", hint=f"edgesod run {_HINT}")
        if os.isatty(descriptor):
            raise UsageError(f"{self.name} is a keyboard, not a pipe", hint=f"PROGRAM | edgesod run {_HINT}")
        self.size_hw = options.height, options.width
        self.fps = options.rate or 25.0
        self._descriptor = descriptor
        self._closing = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        assert self.size_hw is not None
        assert self.fps is not None
        index = 0
        while (image := read_picture_from(self._descriptor, self.size_hw, self.name, self._closing)) is not None:
            yield Frame(image, index, index / self.fps, self.name, time.perf_counter())
            index += 1

    def close(self) -> None:
        self.state = "closed"
        self._closing.set()


def read_picture_from(
    descriptor: int,
    size_hw: tuple[int, int],
    name: str,
    closing: threading.Event,
    *,
    row_bytes: int | None = None,
    timeout_s: float | None = None,
) -> NDArray[np.uint8] | None:
    """Read one BGR picture.

    Args:
        descriptor: A pipe, or a file.
        size_hw: Height and width in pixels.
        name: What messages call it.
        closing: Ends the wait when set.
        row_bytes: From the start of one row to the next, where rows are padded.
        timeout_s: How long to wait for the picture.

    Returns:
        uint8 ``(H, W, 3)``; ``None`` at the end, or when ``closing`` was set.

    Raises:
        InputError: It ends within a picture, or cannot be read.
        TimeoutError: Nothing whole came in time.
    """
    height, width = size_hw
    rows: NDArray[np.uint8] = np.empty((height, row_bytes or 3 * width), np.uint8)
    room = rows.data.cast("B")
    num_read, begun_s = 0, time.perf_counter()
    try:
        while num_read < rows.nbytes:
            if closing.is_set():
                return None
            # Not a blocking read, and not sys.stdin's: its lock, held by a thread that waits, would break Python's exit.
            if not select.select([descriptor], [], [], _LOOK_S)[0]:
                if timeout_s is not None and time.perf_counter() - begun_s > timeout_s:
                    raise TimeoutError(f"{name} delivered nothing for {timeout_s:g} s")
                continue
            got = os.readv(descriptor, [room[num_read:]])
            if got == 0:
                break
            num_read += got
    except TimeoutError:
        raise
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from error
    if num_read == rows.nbytes:
        return rows[:, : 3 * width].reshape(height, width, 3)
    if num_read == 0:
        return None
    message = f"{name} ends within a picture: {num_read} of {rows.nbytes} bytes of {width}×{height} BGR"
    raise InputError(message, hint="check width and height, and that it is BGR with three bytes a pixel")
