"""Which recipe and which FP32 ONNX a command is about: shipped, exported from weights, or the user's own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

from edgesod import zoo
from edgesod.errors import BackendError, InputError, UsageError
from edgesod.recipe import Precision, Recipe, load_recipe, recipe_for

DEFAULT_MODEL = "u2netp"


@contextmanager
def recipe_and_onnx(
    *,
    model: str | None,
    precision: Precision,
    recipe_file: Path | None = None,
    weights: Path | None = None,
    onnx: Path | None = None,
    size: int | None = None,
) -> Iterator[tuple[Recipe, Path]]:
    """Yield the recipe and the FP32 ONNX to work from; an exported one lives as long as the block."""
    if weights is not None and onnx is not None:
        raise UsageError("--weights and --onnx name two sources of one network", hint="give one of them")
    if size is not None and weights is None:
        raise UsageError("--size goes with --weights: shipped and ONNX files have their own", hint=f"leave out --size {size}")
    if model is not None and recipe_file is not None:
        raise UsageError("--recipe names the model already", hint=f"leave out --model {model}")
    if weights is not None and model is None and recipe_file is None:
        raise UsageError("--weights needs to know the network", hint=f"--model {DEFAULT_MODEL} --weights {weights}")
    if recipe_file is not None:
        recipe = load_recipe(recipe_file)
    elif onnx is not None:
        recipe = _recipe_for_onnx(model, precision, onnx)
    elif weights is not None:
        recipe = network_recipe(model or DEFAULT_MODEL, precision, size)
    else:
        recipe = recipe_for(model or DEFAULT_MODEL, precision)
    if onnx is not None:
        yield recipe, onnx
    elif weights is not None:
        with tempfile.TemporaryDirectory(prefix="edgesod-") as folder:
            path = Path(folder) / f"{recipe.model}.onnx"
            export_weights(recipe, weights, path)
            yield recipe, path
    else:
        yield recipe, zoo.shipped(recipe.model).onnx


def export_weights(recipe: Recipe, weights: Path, target: Path) -> float:
    """Export a network with the weights of a file to ``target``; return the largest difference to torch."""
    networks = _networks()
    from edgesod.export import export_model
    from edgesod.processing.pictures import photograph
    from edgesod.processing.preprocess import preprocess

    network = networks.create(recipe.model)
    networks.load_weights(network, weights)
    return export_model(network, recipe.size_hw, target, preprocess(photograph(), recipe)).largest


def _recipe_for_onnx(model: str | None, precision: Precision, onnx: Path) -> Recipe:
    """Return the shipped recipe of ``model`` where there is one, at the size the file asks for."""
    from edgesod.runtime import open_session

    if not onnx.is_file():
        raise InputError(f"there is no ONNX file at {onnx}")
    with open_session(onnx, "fp32", "onnxruntime") as session:
        shape = session.inputs[0].shape
    if len(shape) != 4 or shape[:2] != (1, 3):
        raise InputError(
            f"{onnx} takes an input of shape {shape}, not one image (1, 3, height, width)",
            hint="export it at a fixed size: `edgesod export --model NAME --weights FILE`",
        )
    size_hw = (shape[2], shape[3])
    if model is not None and (found := _network_or_shipped(model, precision)) is not None:
        return found.model_copy(update={"size_hw": size_hw})
    name = "".join(c if c.isalnum() else "-" for c in (model or onnx.stem).lower()).strip("-") or "model"
    return Recipe(model=name, size_hw=size_hw, precision=precision)


def network_recipe(model: str, precision: Precision, size: int | None) -> Recipe:
    """Return the recipe for a network of the trainer, at its own input size or at ``size``."""
    recipe = _network_or_shipped(model, precision)
    if recipe is None:
        raise UsageError(f"there is no network {model!r}", hint=f"networks: {', '.join(_networks().names())}")
    return recipe.model_copy(update={"size_hw": (size, size)}) if size else recipe


def _network_or_shipped(model: str, precision: Precision) -> Recipe | None:
    """Return the recipe shipped for a model, else one made from the trainer's record of the network."""
    try:
        return recipe_for(model, precision)
    except InputError:
        pass
    networks = _networks()
    if model not in networks.names():
        return None
    config = networks.config(model)
    return Recipe(model=model, size_hw=config.size_hw, precision=precision, preprocessing=config.preprocessing)


def _networks() -> ModuleType:
    """Return the trainer's networks, which need torch."""
    try:
        return import_module("trainer.networks")
    except ImportError as error:
        raise BackendError(
            f"the networks and their weights need torch, which is not installed ({error})",
            hint="pip install torch '.[train]', in a clone of edgesod",
        ) from error
