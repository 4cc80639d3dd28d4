"""From the network's output tensor to a result, as a recipe says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgesod.errors import CheckFailed, InputError
from edgesod.recipe import Recipe
from edgesod.types import Result, SaliencyMap

_FLAT = 1e-6


def postprocess(output: NDArray[np.float32], recipe: Recipe, size_hw: tuple[int, int]) -> Result:
    """Make a result of what an engine returned.

    Args:
        output: float32 ``(1, 1, h, w)``, saliency after the sigmoid. It is copied: an engine may write over it afterwards.
        recipe: Gives the threshold, and whether the map is stretched to fill [0, 1] before it is clipped to it.
        size_hw: Height and width of the frame in pixels.

    Raises:
        CheckFailed: The output holds a NaN or an infinity. Both would pass as "not salient" in a mask, and a robot would
            drive on without knowing that its network is broken.
        InputError: ``output`` has another shape.
    """
    if output.ndim != 4 or output.shape[:2] != (1, 1):
        raise InputError(f"an output map has shape (1, 1, h, w), this one has {output.shape}")
    saliency = output[0, 0]
    if not np.isfinite(saliency).all():
        bad = int(saliency.size - np.isfinite(saliency).sum())
        raise CheckFailed(
            f"{recipe.name} gave {bad} of {saliency.size} values that are not finite",
            hint="its numbers overflow at this precision: build it at fp32, or look at the input it got",
        )
    if recipe.postprocessing.stretch:
        saliency = _stretch(saliency)
    return Result(np.clip(saliency, 0, 1, dtype=np.float32), size_hw, recipe.postprocessing.threshold)


def _stretch(saliency: SaliencyMap) -> SaliencyMap:
    """Scale to [0, 1]; a flat map becomes zero instead of noise blown up to fill the range."""
    low, high = saliency.min(), saliency.max()
    stretched: SaliencyMap = (saliency - low) / max(high - low, np.float32(_FLAT))
    return stretched
