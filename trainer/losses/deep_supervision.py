"""One loss over several outputs, each part kept so that it can be drawn as its own curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .terms import TERMS


@dataclass(frozen=True)
class LossParts:
    """A loss and what it is made of.

    Attributes:
        total: The scalar to differentiate.
        parts: ``"d0/bce"`` → detached scalar tensor, for every output and term.
    """

    total: Tensor
    parts: dict[str, Tensor]


class DeepSupervision:
    """Weighted sum of loss terms over a network's outputs.

    Args:
        terms: Term name → weight, such as ``{"bce": 1.0, "iou": 1.0}``.
        output_weights: One weight per output, fused map first; ``None`` means 1 each.
    """

    def __init__(self, terms: dict[str, float], output_weights: Sequence[float] | None = None) -> None:
        if unknown := terms.keys() - TERMS.keys():
            raise ValueError(f"unknown loss term {sorted(unknown)}: there are {sorted(TERMS)}")
        self.terms = dict(terms)
        self.output_weights = list(output_weights) if output_weights is not None else None

    def __call__(self, outputs: Sequence[Tensor], truth: Tensor) -> LossParts:
        """Return the loss of logit maps ``(N, 1, H, W)`` against truth ``(N, 1, H, W)`` in [0, 1]."""
        weights = self.output_weights or [1.0] * len(outputs)
        if len(weights) != len(outputs):
            raise ValueError(f"{len(weights)} output weights for a network of {len(outputs)} outputs")
        total = torch.zeros((), device=truth.device)
        parts: dict[str, Tensor] = {}
        for k, (logits, weight) in enumerate(zip(outputs, weights, strict=True)):
            for name, term_weight in self.terms.items():
                value = TERMS[name](logits.float(), truth)
                total = total + weight * term_weight * value
                parts[f"d{k}/{name}"] = value.detach()
        return LossParts(total, parts)
