"""What an ONNX file says about itself: which network it is and what it wants to be fed.

Kept in the file's metadata under ``edgesod.network`` and ``edgesod.preprocessing``, so that it travels with the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from pydantic import ValidationError

from edgesod.errors import InputError
from edgesod.files import replacing
from edgesod.recipe import Preprocessing, problems

_NETWORK, _PREPROCESSING = "edgesod.network", "edgesod.preprocessing"


@dataclass(frozen=True)
class About:
    """The network an ONNX file holds, by name, and its preprocessing."""

    network: str
    preprocessing: Preprocessing


def read_about(path: str | Path) -> About | None:
    """Return what an ONNX file says about itself, ``None`` where it says nothing.

    Raises:
        InputError: The file cannot be read as ONNX, or says something that cannot be understood.
    """
    said = {entry.key: entry.value for entry in load_onnx(path, with_weights=False).metadata_props}
    if _NETWORK not in said or _PREPROCESSING not in said:
        return None
    try:
        return About(said[_NETWORK], Preprocessing.model_validate_json(said[_PREPROCESSING]))
    except ValidationError as error:
        raise InputError(f"{path} names a preprocessing that is not one: {problems(error)}") from error


def write_about(source: str | Path, target: str | Path, about: About, *, first_output_alone: bool = False) -> None:
    """Write an ONNX file again, saying what it is.

    Args:
        source: The ONNX file.
        target: The file to write; ``source`` itself will do.
        about: What it shall say.
        first_output_alone: Drop all outputs but the first, which the authors' files have beside the fused map.

    Raises:
        InputError: ``source`` cannot be read as ONNX.
        OutputError: ``target`` cannot be written.
    """
    model = load_onnx(source, with_weights=True)
    if first_output_alone:
        del model.graph.output[1:]
        _drop_what_is_not_read(model.graph)
    onnx.helper.set_model_props(
        model,
        {entry.key: entry.value for entry in model.metadata_props}
        | {_NETWORK: about.network, _PREPROCESSING: about.preprocessing.model_dump_json()},
    )
    with replacing(target) as temporary:
        onnx.save(model, temporary)


def _drop_what_is_not_read(graph: onnx.GraphProto) -> None:
    wanted = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):
        if wanted.intersection(node.output):
            wanted.update(node.input)
        else:
            graph.node.remove(node)
    for constant in [constant for constant in graph.initializer if constant.name not in wanted]:
        graph.initializer.remove(constant)


def load_onnx(path: str | Path, *, with_weights: bool) -> onnx.ModelProto:
    """Read an ONNX file, or only what is in the file itself; raises InputError where that fails."""
    try:
        return onnx.load(str(path), load_external_data=with_weights)
    except (OSError, DecodeError) as error:
        raise InputError(f"{path} cannot be read as ONNX: {error}") from error
