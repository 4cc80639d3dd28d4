"""The exponential moving average of a network's weights: what is validated and shipped."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Ema:
    """An averaged copy of ``module``, statistics of batch normalisation included.

    The decay rises as (1 + step) / (10 + step) until it reaches ``decay``, so that early steps are soon forgotten.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move the average towards ``module`` after optimiser step number ``step`` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        theirs = module.state_dict()
        floats = [name for name, value in theirs.items() if value.is_floating_point()]
        mine = self.module.state_dict()
        torch._foreach_lerp_([mine[name] for name in floats], [theirs[name] for name in floats], 1 - decay)
        for name in theirs.keys() - set(floats):
            mine[name].copy_(theirs[name])
