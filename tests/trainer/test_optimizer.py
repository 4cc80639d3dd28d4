"""Muon against the polar factor and torch's own Muon for matrices; the rest against torch."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from edgesod.errors import UsageError
from trainer.training.optimizer import Muon, make_optimizer, orthogonalise, set_learning_rate
from trainer.training.recipe import TrainingRecipe


def _small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 80, 1), nn.Conv2d(80, 6, 1), nn.Conv2d(6, 1, 1)
    )


_HIDDEN = ("2.weight", "3.weight", "4.weight")


def _recipe(**changes: object) -> TrainingRecipe:
    values = {"network": "u2netp", "stages": [{"images": 8, "size": 32, "batch": 4, "lr": 1.0}]}
    return TrainingRecipe.model_validate(values | changes)


def _fill_gradients(network: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize(("rows", "columns"), [(16, 144), (64, 16), (12, 12)])
def test_orthogonalised_has_the_directions_of_the_polar_factor(rows: int, columns: int) -> None:
    matrices = torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, before, vh = torch.linalg.svd(matrices, full_matrices=False)
    inside = u.mT @ orthogonalise(matrices) @ vh.mT  # diagonal, and all ones for the polar factor u @ vh
    after = torch.diagonal(inside, dim1=-2, dim2=-1)
    assert (inside - torch.diag_embed(after)).abs().max() < 1e-9
    share = before / before.norm(dim=-1, keepdim=True)
    assert after[share > 0.01].min() > 0.68
    assert after[share > 0.01].max() < 1.14
    assert after.max() < 1.21


def test_orthogonalised_nothing_is_nothing() -> None:
    assert not orthogonalise(torch.zeros(2, 4, 6)).any()


def test_filters_step_as_matrices_do_in_torch() -> None:
    network = _small_network()
    ours = Muon(network, lr=0.02, weight_decay=0.1)
    weights = dict(network.named_parameters())
    matrices = {name: weights[name].detach().flatten(1).clone().requires_grad_() for name in _HIDDEN}
    theirs = torch.optim.Muon(matrices.values(), lr=0.02, weight_decay=0.1, momentum=0.95, nesterov=True)
    start = {name: matrix.detach().clone() for name, matrix in matrices.items()}
    for seed in range(3):
        _fill_gradients(network, seed)
        for name, matrix in matrices.items():
            gradient = weights[name].grad
            assert gradient is not None
            matrix.grad = gradient.flatten(1)
        ours.step()
        theirs.step()
    for name, matrix in matrices.items():
        moved = (matrix - start[name]).norm()
        # torch iterates in bfloat16
        assert (weights[name].flatten(1) - matrix).norm() < 0.02 * moved, name


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_the_usual_ones_are_torchs(kind: str) -> None:
    made: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
        "sgd": lambda p: torch.optim.SGD(p, lr=0.01, weight_decay=0.1, momentum=0.8),
    }
    network = _small_network()
    reference = copy.deepcopy(network)
    ours = make_optimizer(_recipe(optimizer=kind, weight_decay=0.1, momentum=0.8), network)
    theirs = made[kind](reference.parameters())
    set_learning_rate(ours.param_groups, 0.01)
    _step_both(network, ours, reference, theirs)
    for mine, other in zip(network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-8)


def test_muon_leaves_the_rest_to_adamw_at_a_tenth_of_the_rate() -> None:
    network = _small_network()
    reference = copy.deepcopy(network)
    ours = make_optimizer(_recipe(optimizer="muon", weight_decay=0.1), network)
    set_learning_rate(ours.param_groups, 0.02)
    rest = [parameter for name, parameter in reference.named_parameters() if name not in _HIDDEN]
    _step_both(network, ours, reference, torch.optim.AdamW(rest, lr=0.002, weight_decay=0.1))
    expected = dict(reference.named_parameters())
    for name, parameter in network.named_parameters():
        if name in _HIDDEN:
            assert not torch.equal(parameter, expected[name])
        else:
            torch.testing.assert_close(parameter, expected[name], rtol=1e-6, atol=1e-8)


def _step_both(network: nn.Module, ours: torch.optim.Optimizer, reference: nn.Module, theirs: torch.optim.Optimizer) -> None:
    for seed in range(3):
        _fill_gradients(network, seed)
        _fill_gradients(reference, seed)
        ours.step()
        theirs.step()


def test_muon_runs_a_closure_once_and_before_it_steps() -> None:
    network = _small_network()
    optimizer = Muon(network, lr=0.02, weight_decay=0.0)
    before = network[2].weight.detach().clone()
    calls = []

    def closure() -> Tensor:
        assert torch.is_grad_enabled()
        assert torch.equal(network[2].weight, before)
        calls.append(1)
        _fill_gradients(network, 0)
        return torch.tensor(3.0)

    assert optimizer.step(closure) == 3.0
    assert len(calls) == 1
    assert not torch.equal(network[2].weight, before)


def test_frozen_parameters_stay() -> None:
    network = _small_network()
    optimizer = Muon(network, lr=0.02, weight_decay=0.1)
    _fill_gradients(network, 0)
    frozen = (network[2].weight, network[1].weight)
    before = [parameter.detach().clone() for parameter in frozen]
    for parameter in frozen:
        parameter.grad = None
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(frozen, before, strict=True))


def test_shares_of_the_learning_rate_go_by_name() -> None:
    network = _small_network()
    optimizer = make_optimizer(_recipe(optimizer="sgd", lr_shares={"5.bias": 20.0, "5.*": 10.0}), network)
    set_learning_rate(optimizer.param_groups, 0.5)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    named = dict(network.named_parameters())
    assert len(rates) == len(named)
    assert [rates[id(named[name])] for name in ("0.weight", "5.weight", "5.bias")] == [0.5, 5.0, 10.0]


@pytest.mark.parametrize("shares", [{"6.*": 10.0}, {"5.*": 10.0, "5.bias": 20.0}], ids=["matches nothing", "comes too late"])
def test_shares_that_would_do_nothing_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"no parameter of u2netp is left for {re.escape([*shares][-1])}"):
        make_optimizer(_recipe(optimizer="sgd", lr_shares=shares), _small_network())


def test_shares_with_muon_are_refused() -> None:
    with pytest.raises(ValidationError, match="lr_shares"):
        _recipe(optimizer="muon", lr_shares={"5.*": 10.0})
