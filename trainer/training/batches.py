"""From a set on disk to batches on the device, in the order that belongs to the images seen."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from lightning_fabric import Fabric

from edgesod.evaluation.pairs import EvaluationSet
from trainer.data.loader import ResumableOrder, TrainingSet, load

from .learner import Batch
from .recipe import Stage, TrainingRecipe


def batches_of(
    recipe: TrainingRecipe,
    stage: Stage,
    source: EvaluationSet,
    stems: Sequence[str],
    fabric: Fabric,
    *,
    seen: int,
    workers: int,
) -> Generator[Batch, None, None]:
    """Yield this process' batches of a stage without end, beginning after ``seen`` images of the run.

    The batches of all processes together are those that one process would see at the batch size of all.
    """
    dataset = TrainingSet(source, stems, stage.size, recipe.augmentation_in(stage), recipe.seed, recipe.resize)
    order = ResumableOrder(len(stems), stage.batch, recipe.seed, seen, fabric.global_rank, fabric.world_size)
    for images, masks, names in load(dataset, order, workers):
        yield images.to(fabric.device), masks.to(fabric.device), names
