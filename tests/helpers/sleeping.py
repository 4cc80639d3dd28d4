"""Runtimes that compute nothing and take a known time, and counters of what was asked of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgesod.recipe import Recipe
from edgesod.runtime import MemorySession, Runtime
from tests.helpers.engines import INPUT, OUTPUT, RECIPE


def sleeping_runtime(
    delay_s: float = 0.0,
    saliency: Callable[[NDArray[np.float32]], NDArray[np.float32]] = lambda image: image[:, :1] * 0,
    recipe: Recipe = RECIPE,
) -> Runtime:
    """Return a runtime whose network sleeps, then maps its input tensor, float32 ``(1, 3, h, w)``, to ``(1, 1, h, w)``."""
    session = MemorySession(lambda feeds: {"saliency": saliency(feeds["image"])}, [INPUT], [OUTPUT], delay_s=delay_s)
    return Runtime.from_session(session, recipe)
