"""Score a network on pairs with edgesod's own scorer and the runtime's own preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import torch
from torch import nn

from edgesod.evaluation.metrics import SodScorer
from edgesod.evaluation.pairs import EvaluationSet
from edgesod.processing.resize import resize_image, resize_map
from edgesod.recipe import Preprocessing
from trainer.data.loader import normalise_batch


@torch.no_grad()
def validate(
    model: nn.Module,
    source: EvaluationSet,
    stems: Sequence[str],
    size: int,
    how: Preprocessing,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Return the scores of ``model`` (in evaluation mode) on ``stems``, maps brought back to each mask's own size.

    ``None`` when ``should_stop``, asked before each picture, says so.

    Beside those of :class:`SodScorer` there is ``blank``, the share of maps that would become a mask of nothing, or of
    everything: black pictures, all pixels on one side of one half.
    """
    device = next(model.parameters()).device
    scorer = SodScorer()
    blank = 0
    for stem in stems:
        if should_stop():
            return None
        image_BGR, mask = source.read(stem)
        small = cv2.cvtColor(resize_image(image_BGR, (size, size), how.resize), cv2.COLOR_BGR2RGB)
        pixels = torch.from_numpy(small).permute(2, 0, 1)[None].to(device)
        logits = model(normalise_batch(pixels, how))[0]
        saliency = torch.sigmoid(logits.float())[0, 0].cpu().numpy()
        scorer.add(resize_map(saliency, mask.shape), mask)
        blank += int(saliency.max() < 0.5 or saliency.min() >= 0.5)
    return scorer.scores() | {"blank": blank / len(stems)}
