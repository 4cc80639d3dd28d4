"""One loss over several outputs, each part kept so that it can be drawn as its own curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgesod.errors import UsageError

from .terms import TAUGHT, TERMS


@dataclass(frozen=True)
class LossParts:
    """A loss and what it is made of.

    Attributes:
        total: The scalar to differentiate.
        parts: ``"d0/bce"`` → detached scalar tensor, for every output and term, before weighting.
    """

    total: Tensor
    parts: dict[str, Tensor]

    @staticmethod
    def mean(several: Sequence[LossParts]) -> LossParts:
        """Return the mean of several losses, detached."""
        n = len(several)
        total = torch.stack([loss.total.detach() for loss in several]).sum() / n
        parts = {name: torch.stack([loss.parts[name] for loss in several]).sum() / n for name in several[0].parts}
        return LossParts(total, parts)


class DeepSupervision:
    """Weighted sum of loss terms over a network's outputs.

    U²-Net is published with ``{"bce": 1}``, BASNet and BAPoolNet with ``{"bce": 1, "ssim": 1, "iou": 1}``, every output
    weighing 1, PoolNet and SRM with ``{"bce_sum": 1}``.

    Args:
        terms: Term name → weight.
        output_weights: One weight per output, the prediction first; ``None`` means 1 each.
        names: One name per output, for the parts; ``None`` means d0, d1, …

    Raises:
        UsageError: No term, an unknown one, or, when called, another number of outputs than weights.
    """

    def __init__(
        self, terms: dict[str, float], output_weights: Sequence[float] | None = None, names: Sequence[str] | None = None
    ) -> None:
        unknown = sorted(terms.keys() - TERMS.keys())
        if unknown or not terms:
            what = f"unknown loss terms {unknown}" if unknown else "a loss of no terms"
            raise UsageError(what, hint=f"loss terms: {', '.join(sorted(TERMS))}")
        self.terms = dict(terms)
        self.output_weights = list(output_weights) if output_weights is not None else None
        self.names = names

    def __call__(self, outputs: Sequence[Tensor], truth: Tensor, taught: Tensor | None = None) -> LossParts:
        """Return the loss of logit maps ``(N, 1, H, W)`` against truth ``(N, 1, H, W)`` in [0, 1].

        Half-precision logits are widened to float32 first; float64 stays float64.

        Args:
            outputs: Logits, the prediction first.
            truth: What most terms compare them with.
            taught: A teacher's prediction, likewise in [0, 1]: what ``distill`` compares every one of them with.
        """
        weights = self.output_weights if self.output_weights is not None else [1.0] * len(outputs)
        if len(weights) != len(outputs):
            raise UsageError(f"{len(weights)} output weights for a network of {len(outputs)} outputs", hint="give one for each")
        names = self.names if self.names is not None else [f"d{k}" for k in range(len(outputs))]
        weighted = []
        parts: dict[str, Tensor] = {}
        for k, (logits, weight) in enumerate(zip(outputs, weights, strict=True)):
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            for name, term_weight in self.terms.items():
                target = taught if name in TAUGHT else truth
                if target is None:
                    raise UsageError(
                        f"the loss term {name} needs a teacher", hint='teacher = { network = "u2netp" } in the recipe'
                    )
                value = TERMS[name](logits, target.to(logits.dtype))
                weighted.append(weight * term_weight * value)
                parts[f"{names[k]}/{name}"] = value.detach()
        return LossParts(torch.stack(weighted).sum(), parts)
