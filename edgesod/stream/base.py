"""What a source and a sink are; everything else in this room is a kind of one, or joins the two."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.processing.effects import composite
from edgesod.types import Frame, Result


class Source(ABC):
    """Somewhere pictures come from. One pass; iterate in one thread only; whoever opens it closes it.

    Attributes:
        name: Printable, with no credentials in it.
        is_live: Whether pictures come at their own pace, so that a slow reader has to skip some.
        fps: Nominal pictures per second; ``None`` where there is no such thing.
        num_frames: How many pictures to expect, an estimate for videos; ``None`` when live or unknown.
        size_hw: Height and width in pixels; ``None`` where unknown or where pictures differ.
        num_reconnects: How often it was lost and came back.
        state: ``"open"``, ``"reconnecting"`` or ``"closed"``.
        patience_s: How long it may take over a frame by its own time-outs, in seconds; nobody takes it for stuck before.
    """

    name: str
    is_live: bool = False
    fps: float | None = None
    num_frames: int | None = None
    size_hw: tuple[int, int] | None = None
    num_reconnects: int = 0
    state: str = "open"
    patience_s: float = 0.0

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in order.

        Raises:
            InputError: A picture, or what is left of a video, cannot be read; every frame before it was yielded.
            SourceLost: A camera or stream stopped delivering.
        """

    def close(self) -> None:  # noqa: B027  (not every source holds something)
        """Let go of the file or device; safe to call twice, and from another thread than the one that reads."""

    def __enter__(self) -> Source:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Sink(ABC):
    """Somewhere pictures go. Written by one thread at a time; whoever opens it closes it.

    Attributes:
        name: Printable.
        wants_picture: Whether it looks at ``image``. Where no sink that takes a frame does, nothing is rendered and ``image``
            is the frame's own.
        source: The one of several sources whose frames it takes; ``None`` takes those of all.
        is_done: Whether it has asked for the end of the run.
    """

    name: str
    wants_picture: bool = True
    source: int | None = None
    is_done: bool = False

    def takes(self, frame: Frame) -> bool:
        """Tell whether it is to be given a frame; asked before the frame is drawn, from another thread than the one that writes."""
        return self.source in (None, frame.source)

    @abstractmethod
    def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
        """Take one picture.

        Args:
            image: uint8 BGR ``(H, W, 3)``, BGRA ``(H, W, 4)`` or grey ``(H, W)``; not kept after the call.
            frame: The frame it was made from, for its time, index and name.
            result: What the network made of the frame; ``None`` where there was no network.

        Raises:
            OutputError: It cannot be written; what was begun is thrown away.
        """

    def close(self) -> None:  # noqa: B027  (not every sink holds something)
        """Finish the output, so that it holds every picture written so far; safe to call twice and after ``abort``.

        Raises:
            OutputError: The output cannot be finished.
        """

    def abort(self) -> None:  # noqa: B027  (not every sink holds something)
        """Throw away what is not finished; safe to call twice and after ``close``."""

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def as_uint8(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return ``image`` itself when it is a picture a sink can take.

    Raises:
        ValueError: It is not uint8 of shape ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)``.
    """
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))):
        raise ValueError(f"a picture is uint8 (H, W), (H, W, 3) or (H, W, 4); got {image.dtype} {image.shape}")
    return image


def as_bgr(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a picture that a sink takes as contiguous BGR ``(H, W, 3)``, what is transparent put on a plain background."""
    image = as_uint8(image)
    if image.ndim == 2:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)
    return composite(image) if image.shape[2] == 4 else np.ascontiguousarray(image)
