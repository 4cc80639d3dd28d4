"""Networks by name and weights from a file: the only place that knows what there is."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from edgesod.errors import InputError, UsageError

from . import u2net

_NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "u2net": u2net.u2net,
    "u2netp": u2net.u2netp,
}


def names() -> list[str]:
    """Return the names that :func:`create` knows, sorted."""
    return sorted(_NETWORKS)


def create(name: str) -> nn.Module:
    """Return a freshly initialised network."""
    if name not in _NETWORKS:
        raise UsageError(f"there is no network {name!r}", hint=f"networks: {', '.join(names())}")
    return _NETWORKS[name]()


def load_weights(module: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load a state dict, by name, into ``module``.

    Args:
        module: What :func:`create` returned.
        path: A ``.safetensors`` file, or a ``.pth`` as the authors release them.

    Raises:
        InputError: The file is missing, is not a state dict, or its names or shapes do not fit. Only a ``module.`` prefix
            and missing ``num_batches_tracked`` counters are tolerated.
    """
    state = {name.removeprefix("module."): value for name, value in _read_state(Path(path)).items()}
    wanted = module.state_dict()
    for name in wanted.keys() - state.keys():
        if name.endswith(".num_batches_tracked"):
            state[name] = wanted[name]
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    shapes = [n for n in wanted.keys() & state.keys() if wanted[n].shape != state[n].shape]
    if missing or extra or shapes:
        raise InputError(
            f"{path} does not fit the network: {len(missing)} keys missing {missing[:3]}, {len(extra)} unknown {extra[:3]}, "
            f"{len(shapes)} of another shape {sorted(shapes)[:3]}",
            hint="name the network these weights belong to with --model",
        )
    module.load_state_dict(state)


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"there is no weights file at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise InputError(
            f"{path} cannot be read as a state dict: {str(error).splitlines()[0]}",
            hint="give a .safetensors file, or a .pth that holds nothing but a state dict",
        ) from error
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path} holds a {type(state).__name__}, not a state dict of tensors")
    return state
