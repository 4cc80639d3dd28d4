"""The optimisers recipes may name: SGD, Adam and AdamW as torch has them, and Muon for convolutions with AdamW for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from edgesod.errors import UsageError

from .recipe import TrainingRecipe

# Muon's constants are its author's: the quintic iteration's coefficients, its length, and the momentum.
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_MOMENTUM = 0.95
_ADAMW_SHARE = 0.1


class Muon(torch.optim.AdamW):
    """Momentum whose update is orthogonalised per convolution; every other parameter takes AdamW's step.

    A filter bank ``(out, in, h, w)`` is treated as the matrix ``(out, in·h·w)``. Its Nesterov momentum is replaced by
    (nearly) the closest matrix whose singular values are all 1, so that rare directions move as far as frequent ones.
    ``torch.optim.Muon`` takes matrices only and one at a time, hence this one. Source: Jordan et al., "Muon: An optimizer for
    hidden layers in neural networks", 2024, with the convolution handling of the same author's CIFAR-10 speed runs.

    Args:
        module: Network; its convolutions are orthogonalised, save those that read the picture (up to 3 channels in) and
            those that write a map (up to 2 out).
        lr: Learning rate of the orthogonalised updates; AdamW's is a tenth of it.
        weight_decay: Decoupled decay, of all parameters.
    """

    def __init__(self, module: nn.Module, lr: float, weight_decay: float) -> None:
        filters, rest = [], []
        for parameter in module.parameters():
            is_hidden = parameter.ndim == 4 and parameter.shape[0] > 2 and parameter.shape[1] > 3
            (filters if is_hidden else rest).append(parameter)
        groups = [
            {"params": filters, "lr_share": 1.0, "is_orthogonal": True},
            {"params": rest, "lr_share": _ADAMW_SHARE, "is_orthogonal": False},
        ]
        super().__init__(groups, lr=lr, weight_decay=weight_decay, **_implementation(module))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step and return what ``closure``, where given, returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        for group in groups:
            if group["is_orthogonal"]:
                self._step_filters(group)
        # AdamW steps whatever is in param_groups
        self.param_groups = [group for group in groups if not group["is_orthogonal"]]
        try:
            super().step()
        finally:
            self.param_groups = groups
        return loss

    def _step_filters(self, group: dict[str, Any]) -> None:
        # filters of one shape go through the iteration together: a hundred small products would be all overhead
        alike: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                # AdamW looks for a step count in every state it loads
                state |= {"step": torch.tensor(0.0), "momentum": torch.zeros_like(parameter)}
            momentum = state["momentum"].lerp_(parameter.grad, 1 - _MOMENTUM)
            alike.setdefault(tuple(parameter.shape), []).append((parameter, parameter.grad.lerp(momentum, _MOMENTUM)))
        for shape, pairs in alike.items():
            rows, columns = shape[0], shape[1] * shape[2] * shape[3]
            directions = orthogonalise(torch.stack([update.reshape(rows, columns) for _, update in pairs]))
            # tall matrices would move every output by less than wide ones do
            rate = group["lr"] * max(1.0, rows / columns) ** 0.5
            for (parameter, _), direction in zip(pairs, directions, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(direction.view(shape), alpha=-rate)


def orthogonalise(matrices: Tensor) -> Tensor:
    """Return float ``(N, rows, columns)`` with the singular values of each matrix brought near 1, its directions kept.

    Values above a hundredth of the matrix' norm end between 0.68 and 1.14; smaller ones grow, at most 485-fold and to 1.21.
    A matrix of zeros stays one.
    """
    a, b, c = _NEWTON_SCHULZ
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    is_tall = x.shape[-2] > x.shape[-1]
    if is_tall:
        x = x.mT
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x


def _implementation(module: nn.Module) -> dict[str, bool]:
    # fused is five times as fast on a CPU; on GPUs it would unscale fp16's gradients itself, after they were to be clipped
    return {"fused" if next(module.parameters()).device.type == "cpu" else "foreach": True}


def make_optimizer(recipe: TrainingRecipe, module: nn.Module) -> torch.optim.Optimizer:
    """Return the recipe's optimiser over ``module``; the loop sets the learning rate before every step.

    Raises:
        UsageError: A pattern of ``lr_shares`` counts for no parameter.
    """
    decay = recipe.weight_decay
    if recipe.optimizer == "muon":
        return Muon(module, lr=1.0, weight_decay=decay)
    by_share: dict[float, list[nn.Parameter]] = {}
    used: set[str | None] = set()
    for name, parameter in module.named_parameters():
        pattern = next((pattern for pattern in recipe.lr_shares if fnmatchcase(name, pattern)), None)
        used.add(pattern)
        by_share.setdefault(1.0 if pattern is None else recipe.lr_shares[pattern], []).append(parameter)
    if idle := sorted(recipe.lr_shares.keys() - used):
        raise UsageError(
            f"lr_shares of the recipe: no parameter of {recipe.network} is left for {', '.join(idle)}",
            hint="the first pattern that matches counts; names are those of the weights file",
        )
    groups = [{"params": parameters, "lr_share": share} for share, parameters in by_share.items()]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=1.0, momentum=recipe.momentum, weight_decay=decay, foreach=True)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    return kind(groups, lr=1.0, weight_decay=decay, **_implementation(module))


def set_learning_rate(groups: Iterable[dict[str, Any]], rate: float) -> None:
    """Give every parameter group its share of ``rate``."""
    for group in groups:
        group["lr"] = rate * group["lr_share"]
