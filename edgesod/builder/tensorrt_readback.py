"""What precision an engine was really built in, read back from TensorRT's engine inspector."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from edgesod.errors import BuildError
from edgesod.recipe import Precision

_MOVES = {"Reformat", "NoOp", "Constant", "Shape", "Shuffle"}
"""Kinds of layers that compute nothing: their types are their neighbours'."""
_TYPES = (
    ("", re.compile(r"uint8|unsigned", re.IGNORECASE)),
    ("int8", re.compile(r"int8", re.IGNORECASE)),
    ("fp8", re.compile(r"fp8|float8", re.IGNORECASE)),
    ("bf16", re.compile(r"bf16|bfloat16", re.IGNORECASE)),
    ("fp16", re.compile(r"fp16|half|float16", re.IGNORECASE)),
    ("fp32", re.compile(r"fp32|float", re.IGNORECASE)),
)
"""In this order, because one word may be part of another. The inspector says ``Half`` or ``Channel major FP16 format …``.
Unsigned bytes are a camera's, and nothing is computed in them."""


def layer_types(information: str) -> dict[str, int]:
    """Count an engine's layers by the type they compute in: ``int8``, ``fp16``, ``fp32`` …

    Args:
        information: JSON of the inspector for an engine built with detailed verbosity.

    Returns:
        Empty where the inspector names no types.
    """
    return dict(Counter(kind for _, kind in _typed_layers(information)).most_common())


def check_types(information: str, precision: Precision) -> None:
    """Make sure that an engine computes in the precision that was asked for.

    Most layers with weights have to where the inspector shows any, one layer otherwise; and none in less than was asked for.

    Raises:
        BuildError: It does not, or the inspector does not say.
    """
    layers = list(_typed_layers(information))
    if not layers:
        raise BuildError(
            f"the engine's precision cannot be read back: TensorRT's inspector names no types in {information[:200]!r}",
            hint="report it, with the version of TensorRT",
        )
    weighted = Counter(kind for has_weights, kind in layers if has_weights)
    every = Counter(kind for _, kind in layers)
    counted = weighted or every
    below = {"fp32": ("fp16", "bf16", "fp8", "int8"), "fp16": ("fp8", "int8")}.get(precision, ())
    is_there = weighted[precision] * 2 > weighted.total() if weighted else every[precision] > 0
    if not is_there or any(every[kind] for kind in below):
        found = ", ".join(f"{number} in {kind}" for kind, number in counted.most_common())
        what = "layers with weights" if weighted else "layers"
        raise BuildError(
            f"{precision} was asked for, but TensorRT built its {what} otherwise: {found}",
            hint=f"build --{counted.most_common(1)[0][0]}"
            if precision != "fp32"
            else "report it, with the version of TensorRT",
        )


def _typed_layers(information: str) -> Iterator[tuple[bool, str]]:
    """Yield whether it has weights, and the type, of every layer that computes and has a type."""
    for layer in json.loads(information)["Layers"]:
        if isinstance(layer, dict) and layer.get("LayerType") not in _MOVES:
            kind = _kind(layer)
            if kind:
                yield _weights(layer) is not None, kind


def _kind(layer: dict[str, Any]) -> str:
    # a layer's arithmetic is that of its weights, else of what it reads: INT8 convolutions may write FP16
    tensors = (*(layer.get("Inputs") or ()), *(layer.get("Outputs") or ()))  # those that only wait for others have none
    words = [_weights(layer), *(tensor.get("Format/Datatype") for tensor in tensors)]
    kinds = (next((name for name, pattern in _TYPES if pattern.search(word)), "") for word in words if word)
    return next(filter(None, kinds), "")


def _weights(layer: dict[str, Any]) -> str | None:
    weights = layer.get("Weights")
    return str(weights["Type"]) if isinstance(weights, dict) and weights.get("Type") and weights.get("Count", 1) else None
