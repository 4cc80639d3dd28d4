"""How a run's pictures look, changed by one thread while another draws."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import Any

from edgesod.errors import UsageError
from edgesod.processing.blending import Picture
from edgesod.processing.effects import apply_effect, check_effect, cover
from edgesod.types import Frame, Result

Background = Picture | Callable[[Frame], Picture]
"""What the effect ``replace`` shows behind the subject: a picture, uint8 BGR, or what gives one for a frame."""


@dataclass(frozen=True)
class _State:
    effect: str
    threshold: float | None


class Look:
    """The effect and the threshold in use. Any thread may change them; a picture is drawn with those it began with.

    Args:
        effect: One of :data:`~edgesod.processing.effects.EFFECTS`.
        threshold: Saliency from which a pixel belongs to the mask; each result's own where ``None``.
        background: For ``replace``, of any size.

    Raises:
        UsageError: As :meth:`set`.
    """

    def __init__(self, effect: str = "overlay", threshold: float | None = None, background: Background | None = None) -> None:
        self._background = background
        self._covering: Picture | None = None
        self._lock = threading.Lock()
        self._state = _State("overlay", None)
        self.set(effect=effect, threshold=threshold)

    @property
    def effect(self) -> str:
        return self._state.effect

    @property
    def threshold(self) -> float | None:
        return self._state.threshold

    def set(self, effect: str | None = None, threshold: float | EllipsisType | None = ...) -> None:
        """Change what is given and leave the rest; changes both or neither. The threshold ``None`` is each result's own again.

        Raises:
            UsageError: There is no such effect, it needs a background and there is none, or the threshold is not between 0
                and 1.
        """
        if effect is not None:
            check_effect(effect, has_background=self._background is not None)
        if threshold is not None and threshold is not ... and not (_is_number(threshold) and 0 < threshold < 1):
            raise UsageError(f"a threshold lies between 0 and 1, this is {threshold!r}", hint="--threshold 0.5")
        with self._lock:
            state = self._state
            self._state = _State(effect or state.effect, state.threshold if threshold is ... else threshold)

    def as_dict(self) -> dict[str, Any]:
        """Return ``effect``, ``threshold`` (or ``None``) and whether there is a ``background``, ready for JSON."""
        state = self._state
        return {"effect": state.effect, "threshold": state.threshold, "background": self._background is not None}

    def cut(self, result: Result) -> Result:
        """Return the result with the threshold in use, so that its mask and box are those that are drawn."""
        return _cut(result, self._state.threshold)

    def render(self, frame: Frame, result: Result) -> Picture:
        """Draw a frame; called by one thread.

        Returns:
            uint8 BGR ``(H, W, 3)``, BGRA ``(H, W, 4)`` for ``cutout``; the caller's own.
        """
        state = self._state
        result = _cut(result, state.threshold)
        background = self._behind(frame) if state.effect == "replace" else None
        return apply_effect(state.effect, frame.image, result, background)

    def _behind(self, frame: Frame) -> Picture | None:
        if callable(self._background):
            return self._background(frame)
        size_hw = frame.image.shape[0], frame.image.shape[1]
        if self._background is not None and (self._covering is None or self._covering.shape[:2] != size_hw):
            self._covering = cover(self._background, size_hw)
        return self._covering


def _cut(result: Result, threshold: float | None) -> Result:
    return result if threshold is None or threshold == result.threshold else replace(result, threshold=threshold)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
