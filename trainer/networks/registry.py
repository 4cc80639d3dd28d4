"""Networks by name, their records, and weights from a file: the only place that knows what there is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from edgesod.errors import InputError, UsageError
from edgesod.recipe import Preprocessing, problems

from . import basnet, poolnet, srm, u2net
from .config import NetworkConfig
from .resnet import Backbone

_CONFIGS: dict[str, NetworkConfig] = {
    record.name: record for family in (basnet, poolnet, srm, u2net) for record in family.CONFIGS
}


@dataclass(frozen=True)
class WeightsMetadata:
    """What a weights file says about itself.

    Attributes:
        network: What :func:`create` takes.
        preprocessing: What the weights were trained with.
    """

    network: str
    preprocessing: Preprocessing

    def to_strings(self) -> dict[str, str]:
        """Return it as the header of a ``.safetensors`` file takes it."""
        return {"format": "pt", "network": self.network, "preprocessing": self.preprocessing.model_dump_json()}


def names() -> list[str]:
    """Return the names that :func:`create` knows, sorted."""
    return sorted(_CONFIGS)


def config(name: str) -> NetworkConfig:
    """Return the record of a network.

    Raises:
        UsageError: There is no network of that name.
    """
    if name not in _CONFIGS:
        raise UsageError(f"there is no network {name!r}", hint=f"networks: {', '.join(names())}")
    return _CONFIGS[name]


def create(name: str) -> nn.Module:
    """Return a freshly initialised network.

    Every network takes float ``(N, 3, H, W)`` and returns a list of logit maps ``(N, 1, H, W)``, the prediction first; a size
    it cannot take is a ``ValueError``.

    Raises:
        UsageError: There is no network of that name.
    """
    return config(name).constructor()


def load_weights(module: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load a state dict, by name, into ``module``; a variant takes that of the network it was derived from as well.

    Args:
        module: What :func:`create` returned.
        path: A ``.safetensors`` file, or a ``.pth`` as the authors release them. No code in it is run.

    Raises:
        InputError: The file is missing, is not a state dict, or its names or shapes do not fit. Only a ``module.`` prefix
            and missing ``num_batches_tracked`` counters are tolerated. ``module`` is as it was.
    """
    state = _read_state(Path(path))
    if adapt := getattr(module, "adapt", None):
        state = adapt(state)
    _require_fit(module.state_dict(), state, path, hint="name the network these weights belong to with --model")
    module.load_state_dict(state, strict=False)


def weights_metadata(path: str | os.PathLike[str]) -> WeightsMetadata | None:
    """Return what a weights file says about itself, ``None`` when it says nothing, as the authors' files do not.

    Raises:
        InputError: The file is missing or cannot be read, or says something that cannot be understood.
    """
    path = Path(path)
    _require_file(path)
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read as a state dict: {error}") from error
    if "network" not in said or "preprocessing" not in said:
        return None
    try:
        return WeightsMetadata(said["network"], Preprocessing.model_validate_json(said["preprocessing"]))
    except ValidationError as error:
        raise InputError(f"{path} names a preprocessing that is not one: {problems(error)}") from error


def load_backbone(module: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load ImageNet weights into the backbone of a network that has one, and freeze its batch normalisation where due.

    Args:
        module: A BASNet, which takes torchvision's ResNet-34, or a PoolNet or BAPoolNet, which take Caffe's ResNet-50 under
            torchvision's names. A torchvision ResNet-50 has the same names and shapes and cannot be told apart, but its
            strides lie elsewhere.
        path: The state dict, ``.safetensors`` or ``.pth``, with or without the classifier.

    Raises:
        UsageError: The network has no ImageNet backbone.
        InputError: The file is missing, is not a state dict, or is not that backbone. ``module`` is as it was.
    """
    backbone: Backbone | None = getattr(module, "backbone", None)
    if backbone is None:
        raise UsageError(
            f"{type(module).__name__} has no ImageNet backbone to load", hint="leave the backbone out: it trains from scratch"
        )
    wanted = {
        theirs + key.removeprefix(ours): value
        for key, value in module.state_dict().items()
        for ours, theirs in backbone.keys.items()
        if key.startswith(ours)
    }
    state = {key: value for key, value in _read_state(Path(path)).items() if not key.startswith(backbone.unused)}
    _require_fit(wanted, state, path, hint="BASNet takes torchvision's resnet34, the PoolNets Caffe's resnet50")
    with torch.no_grad():
        for key, value in state.items():
            wanted[key].copy_(value)
    if backbone.freezes_batch_norm:
        freeze_batch_norm(module)


def freeze_batch_norm(module: nn.Module) -> None:
    """Stop learning batch normalisation: no gradient for scale and shift, and statistics as they are.

    A resumed run has to ask for it again, for a checkpoint does not hold it. Networks that train so keep it through
    ``module.train()``.
    """
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.requires_grad_(False).eval()


def _require_file(path: Path) -> None:
    if path.is_dir():
        inside = [*path.glob("ema.safetensors"), *sorted(path.glob("checkpoint-*/ema.safetensors"))]
        raise InputError(f"{path} is a folder, not a file of weights", hint=f"give {inside[-1]}" if inside else "")
    if not path.is_file():
        raise InputError(f"there is no weights file at {path}")


def _read_state(path: Path) -> dict[str, Tensor]:
    _require_file(path)
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:  # torch's own words are advice to run whatever code a file brings along
        raise InputError(
            f"{path} cannot be read as a state dict: it is not a file that torch wrote, or holds more than tensors",
            hint="give a .safetensors file, or a .pth that holds nothing but a state dict",
        ) from error
    except Exception as error:  # what reading damaged bytes raises is anybody's guess
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"{path} cannot be read as a state dict: {reason}",
            hint="give a .safetensors file, or a .pth that holds nothing but a state dict",
        ) from error
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(
            f"{path} holds a {type(state).__name__} that is not a state dict of tensors",
            hint="save the network's state_dict() alone",
        )
    wrapped = all(key.startswith("module.") for key in state)
    return {key.removeprefix("module."): value for key, value in state.items()} if wrapped else state


def _require_fit(wanted: dict[str, Tensor], state: dict[str, Tensor], path: str | os.PathLike[str], *, hint: str) -> None:
    missing = sorted(key for key in wanted.keys() - state.keys() if not key.endswith(".num_batches_tracked"))
    extra = sorted(state.keys() - wanted.keys())
    shapes = sorted(key for key in wanted.keys() & state.keys() if wanted[key].shape != state[key].shape)
    if missing or extra or shapes:
        raise InputError(
            f"{path} does not fit the network: {len(missing)} keys missing {missing[:3]}, {len(extra)} unknown {extra[:3]}, "
            f"{len(shapes)} of another shape {shapes[:3]}",
            hint=hint,
        )
