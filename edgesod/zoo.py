"""The models this package ships: weights, FP32 ONNX and the card that says what they were measured to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesod import assets
from edgesod.errors import InputError
from edgesod.files import read_json


@dataclass(frozen=True)
class ShippedModel:
    """One model of the package.

    Attributes:
        name: What ``--model`` takes.
        onnx: FP32 ONNX file.
        weights: State dict, safetensors.
        card: The model card's numbers: data, training, scores, licence.
    """

    name: str
    onnx: Path
    weights: Path
    card: dict[str, Any]


def names() -> list[str]:
    """Return the names of the shipped models, sorted."""
    return sorted(path.parent.name for path in assets.models().glob("*/card.json"))


def shipped(name: str) -> ShippedModel:
    """Return a shipped model.

    Raises:
        InputError: No model of that name is shipped.
    """
    folder = assets.models() / name
    if not (folder / "card.json").is_file():
        raise InputError(
            f"no model {name!r} is shipped with this package",
            hint=f"shipped: {', '.join(names())}; or bring your own with --weights FILE or --onnx FILE",
        )
    return ShippedModel(name, folder / f"{name}.onnx", folder / f"{name}.safetensors", read_json(folder / "card.json"))
