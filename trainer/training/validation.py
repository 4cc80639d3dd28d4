"""Score a network on pairs with edgesod's own scorer and the runtime's own preprocessing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from edgesod.evaluation.metrics import SodScorer
from edgesod.processing.resize import resize_image, resize_map
from trainer.data.loader import normalise_batch
from trainer.data.sources import PairSource


@torch.no_grad()
def validate(model: nn.Module, source: PairSource, stems: Sequence[str], size: int) -> dict[str, float]:
    """Return the scores of ``model`` (in evaluation mode) on ``stems``, maps brought back to each mask's own size."""
    device = next(model.parameters()).device
    scorer = SodScorer()
    for stem in stems:
        image, mask = source.read(stem)
        pixels = torch.from_numpy(resize_image(image, (size, size))).permute(2, 0, 1)[None].to(device)
        x, _ = normalise_batch(pixels, pixels[:, :1])
        logits = model(x.contiguous(memory_format=torch.channels_last))[0]
        saliency = torch.sigmoid(logits.float())[0, 0].cpu().numpy()
        scorer.add(resize_map(saliency, mask.shape), mask)
    return scorer.scores()
