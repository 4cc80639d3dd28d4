"""Masks that hold still: what is done to the maps of a stream, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgesod.buffers import POOL
from edgesod.errors import UsageError
from edgesod.processing.cleanup import clean
from edgesod.processing.guided import refine
from edgesod.processing.temporal import NO_GREY, FlowAverage, Grey, MotionAverage, PlainAverage, psnr, small_grey
from edgesod.recipe import problems
from edgesod.types import Frame, Result, SaliencyMap

Infer = Callable[[NDArray[np.uint8]], Result]

_LONGEST_HOLD = 30  # frames: what is too small to show in a whole picture's PSNR is still seen about once a second


class SteadySettings(BaseModel):
    """What is done to the maps; nothing where a setting is left out. The order below is the order of doing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: int = Field(default=1, ge=1)
    """Run the network on one frame of so many; the others show its map again, moved along where ``flow`` is on."""
    similar: float | None = Field(default=None, gt=0)
    """Run it only where the frame's PSNR to the last one it ran on, in dB on a small grey picture, is below this."""
    smooth: float | None = Field(default=None, gt=0, le=1)
    """Average over time; how much the new map counts."""
    motion: float | None = Field(default=None, gt=0, le=1)
    """The same, but the new map counts more where the picture changed; how much it counts where it did not."""
    flow: float | None = Field(default=None, gt=0, le=1)
    """The same, with the old map moved along the motion in the picture first."""
    hysteresis: float = Field(default=0, ge=0, lt=0.5)
    """What is this far below the threshold belongs to the mask where it hangs together with what is as far above it."""
    area: float = Field(default=0, ge=0, lt=1)
    """Smallest connected piece of the mask, as a share of the picture."""
    holes: float = Field(default=0, ge=0, lt=1)
    """Largest hole that is filled, as a share of the picture."""
    refine: bool = False
    """Carry the map's edges to where the frame has them, at frame size."""
    feather: float = Field(default=0, ge=0, le=100)
    """Soften the map: standard deviation of a Gaussian in pixels of the frame."""

    @model_validator(mode="after")
    def _one_average(self) -> SteadySettings:
        if sum(weight is not None for weight in (self.smooth, self.motion, self.flow)) > 1:
            raise ValueError("smooth, motion and flow are three forms of one thing: name one of them")
        return self


_WHEN_NAMED = {
    "every": 2,
    "similar": 40,
    "smooth": 0.5,
    "motion": 0.3,
    "flow": 0.3,
    "hysteresis": 0.1,
    "area": 0.002,
    "holes": 0.005,
    "refine": True,
    "feather": 2,
}
"""What a name without a value stands for."""


def parse_steady(text: str) -> SteadySettings:
    """Read settings from text such as ``flow,hysteresis=0.1,area=0.002,holes,refine,every=2``.

    Raises:
        UsageError: A name or value is not one of :class:`SteadySettings`', a name comes twice, or two exclude each other.
    """
    hint = f"--steady flow,area,holes; names: {', '.join(_WHEN_NAMED)}, each with or without =VALUE"
    values: dict[str, object] = {}
    for part in text.split(","):
        name, mark, value = (piece.strip() for piece in part.partition("="))
        if name not in _WHEN_NAMED:
            raise UsageError(f"--steady knows no {name!r}", hint=hint)
        if name in values:
            raise UsageError(f"--steady names {name!r} twice", hint=hint)
        values[name] = value if mark else _WHEN_NAMED[name]
    try:
        return SteadySettings.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"--steady {text}: {problems(error)}", hint=hint) from error


class Steady:
    """Turn the frames of one source into results whose masks hold still; one object per source, one thread at a time.

    It starts anew when the frame's size changes or its index does not grow. A call whose ``infer`` raises leaves no trace.

    Args:
        settings: What to do.
    """

    def __init__(self, settings: SteadySettings) -> None:
        self.settings = settings
        self._average = _average(settings)
        self._last: tuple[tuple[int, ...], int] | None = None  # shape and index of the frame before
        self._seen: Grey = NO_GREY  # the frame the network ran on last
        self._num_held = 0
        self._threshold = 0.5

    def __call__(self, frame: Frame, infer: Infer) -> Result:
        """Return the result of a frame, uint8 BGR ``(H, W, 3)``.

        Args:
            frame: The frame.
            infer: Runs the network on a picture; not called for a frame that shows the map of an earlier one.

        Returns:
            A result whose ``times_ms`` has ``steady``, and what ``infer`` put there where it was called.
        """
        began_s = time.perf_counter()
        image, settings = frame.image, self.settings
        if self._last is not None and (image.shape != self._last[0] or frame.index <= self._last[1]):
            self._average, self._last = _average(settings), None
        needs_grey = settings.similar is not None or settings.motion is not None or settings.flow is not None
        grey = small_grey(image) if needs_grey else NO_GREY
        times_ms: dict[str, float] = {}
        inferred_s = 0.0
        if self._holds(grey):
            self._num_held += 1
            saliency = self._average.hold(grey)
        else:
            called_s = time.perf_counter()
            result = infer(image)
            inferred_s = time.perf_counter() - called_s
            times_ms, self._threshold = dict(result.times_ms), result.threshold
            saliency = self._average.add(result.map_hw, grey)
            self._seen, self._num_held = grey, 0
        self._last = image.shape, frame.index
        saliency = self._tidied(saliency, image)
        times_ms["steady"] = (time.perf_counter() - began_s - inferred_s) * 1e3
        return Result(saliency, (image.shape[0], image.shape[1]), self._threshold, times_ms, frame)

    def _holds(self, grey: Grey) -> bool:
        """Tell whether a frame shows the map of an earlier one."""
        if self._last is None:
            return False
        if self._num_held + 1 < self.settings.every:
            return True
        similar = self.settings.similar
        return similar is not None and self._num_held < _LONGEST_HOLD and psnr(grey, self._seen) >= similar

    def _tidied(self, saliency: SaliencyMap, image: NDArray[np.uint8]) -> SaliencyMap:
        settings = self.settings
        if settings.hysteresis or settings.area or settings.holes:
            saliency = clean(
                saliency,
                self._threshold,
                hysteresis=settings.hysteresis,
                min_area=settings.area,
                max_hole=settings.holes,
            )
        if settings.refine:
            saliency = refine(saliency, image)
        if settings.feather:
            saliency = _feathered(saliency, settings.feather * saliency.shape[1] / image.shape[1])
        return saliency


def _average(settings: SteadySettings) -> PlainAverage:
    if settings.flow is not None:
        return FlowAverage(settings.flow)
    if settings.motion is not None:
        return MotionAverage(settings.motion)
    return PlainAverage(1.0 if settings.smooth is None else settings.smooth)


def _feathered(saliency: SaliencyMap, sigma: float) -> SaliencyMap:
    feathered = POOL.empty(saliency.shape, np.float32)
    cv2.GaussianBlur(saliency, (0, 0), sigma, feathered)
    return feathered
