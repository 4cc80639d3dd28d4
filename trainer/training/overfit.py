"""The self-check before a long run: can the network learn one batch by heart?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgesod.errors import CheckFailed
from edgesod.evaluation.pairs import EvaluationSet, hold_out
from trainer import networks
from trainer.losses import TAUGHT, LossParts

from .batches import batches_of
from .devices import make_fabric
from .learner import Learner
from .recipe import TrainingRecipe

BOUND = 0.2
"""Share of its first value below which the prediction's loss has to fall."""
MAX_STEPS = 300


@dataclass(frozen=True)
class Overfit:
    """What came of it.

    Attributes:
        steps: Steps taken.
        first, last: Loss of the prediction, the terms weighted, side outputs and the teacher's term not counted.
    """

    steps: int
    first: float
    last: float


def overfit_one_batch(
    recipe: TrainingRecipe,
    data: Sequence[str],
    *,
    backbone: Path | None = None,
    on_progress: Callable[[int, float], None] = lambda *_: None,
) -> Overfit:
    """Train on the first batch of a recipe, over and over at its first stage's rate, until the prediction fits it.

    A network, loss and optimiser that work together learn a handful of pictures by heart within a few hundred steps. Nothing
    is written.

    Args:
        recipe: What to check.
        data: Folders or tars of the training set.
        backbone: File of ImageNet weights.
        on_progress: Called after every step with its number and the share of the first loss that is left.

    Raises:
        CheckFailed: The loss is still above :data:`BOUND` of its first value after :data:`MAX_STEPS` steps, or it or its
            gradient is not finite.
    """
    learner = Learner(recipe, make_fabric(recipe.precision))
    if backbone is not None:
        learner.load_backbone(backbone)
    learner.start()
    stage = recipe.stages[0]
    source = EvaluationSet(*data)
    batch = next(batches_of(recipe, stage, source, hold_out(source.stems)[0], learner.fabric, seen=0, workers=0))
    prediction = networks.config(recipe.network).outputs[0]
    first = None
    for k in range(1, MAX_STEPS + 1):
        loss = learner.step([batch], stage.lr, (k - 1) * stage.batch)
        last = _loss_of(loss, prediction, recipe)
        first = last if first is None else first
        on_progress(k, last / first)
        if last < BOUND * first:
            return Overfit(k, first, last)
    raise CheckFailed(
        f"after {MAX_STEPS} steps on one batch of {stage.batch} pictures the loss of {prediction} is {last:.3f}, "
        f"{last / first:.0%} of the {first:.3f} it began at; below {BOUND:.0%} was asked for",
        hint="it cannot learn even these by heart: look at their masks, the loss and the learning rate "
        "(five times higher, five times lower) before training longer",
    )


def _loss_of(loss: LossParts, output: str, recipe: TrainingRecipe) -> float:
    # a teacher's term cannot fall below the entropy of its maps
    terms = {term: weight for term, weight in recipe.loss.items() if term not in TAUGHT} or recipe.loss
    return sum(weight * float(loss.parts[f"{output}/{term}"]) for term, weight in terms.items())
