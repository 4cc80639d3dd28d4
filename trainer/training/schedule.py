"""The learning rate as a function of images seen, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math

from .recipe import TrainingRecipe


def learning_rate(recipe: TrainingRecipe, seen: int) -> float:
    """Return the rate for the step that starts at image ``seen``: the stage's, times a linear warm-up from zero."""
    stage, into = recipe.stage_at(seen)
    rate = stage.lr
    if stage.lr_end is not None:
        half_cosine = (1 + math.cos(math.pi * into / stage.images)) / 2
        rate = stage.lr_end + (stage.lr - stage.lr_end) * half_cosine
    if seen < recipe.warmup_images:
        rate *= (seen + stage.batch) / (recipe.warmup_images + stage.batch)
    return rate
