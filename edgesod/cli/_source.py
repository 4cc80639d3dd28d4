"""Which recipe and which FP32 ONNX a command is about: shipped, exported from weights, or the user's own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesod import zoo
from edgesod.cli import _output
from edgesod.errors import BackendError, InputError, UsageError
from edgesod.recipe import Precision, Recipe, load_recipe, recipe_for

if TYPE_CHECKING:
    from edgesod.runtime import Session

DEFAULT_MODEL = "u2netp"

_ROUNDING = 1e-3


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
    """Yield the recipe and the FP32 ONNX to work from; an exported one lives as long as the block.

    Weights and ONNX files that say what they want to be fed are fed that, unless the user's own recipe says otherwise.
    """
    if weights is not None and onnx is not None:
        raise UsageError("--weights and --onnx name two sources of one network", hint="give one of them")
    if size is not None and weights is None:
        raise UsageError("--size goes with --weights: shipped and ONNX files have their own", hint=f"leave out --size {size}")
    if model is not None and recipe_file is not None:
        raise UsageError("--recipe names the model already", hint=f"leave out --model {model}")
    own = load_recipe(recipe_file) if recipe_file is not None else None
    if weights is not None:
        made = from_weights()
        recipe = made.weights_recipe(weights, precision, model=model, size=size, recipe=own)
        with tempfile.TemporaryDirectory(prefix="edgesod-") as folder:
            path = Path(folder) / f"{recipe.model}.onnx"
            made.export_weights(recipe, weights, path)
            yield recipe, path
    elif onnx is not None:
        yield _recipe_for_onnx(model, precision, onnx, own), onnx
    else:
        recipe = own or recipe_for(model or DEFAULT_MODEL, precision)
        yield recipe, zoo.shipped(recipe.model).onnx


def from_weights() -> Any:
    """Return the module :mod:`trainer.export`, which needs torch.

    Raises:
        BackendError: torch is not installed.
    """
    try:
        return import_module("trainer.export")
    except ImportError as error:
        raise BackendError(
            f"the networks and their weights need torch, which is not installed ({error})",
            hint="pip install torch -e '.[train]', in a clone of edgesod",
        ) from error


def _recipe_for_onnx(model: str | None, precision: Precision, onnx: Path, own: Recipe | None) -> Recipe:
    """Return the user's recipe, else that of the network the file or ``model`` names, at the size the file asks for."""
    from edgesod.export.about import read_about
    from edgesod.runtime import open_session

    if not onnx.is_file():
        raise InputError(f"there is no ONNX file at {onnx}")
    about = read_about(onnx)
    model = own.model if own is not None else model
    if about is not None and model not in (None, about.network):
        raise UsageError(f"{onnx} holds {about.network}, not {model}", hint=f"--model {about.network}")
    with open_session(onnx, "fp32", "onnxruntime") as session:
        shape = session.inputs[0].shape
        if len(shape) != 4 or shape[:2] != (1, 3):
            raise InputError(
                f"{onnx} takes an input of shape {shape}, not one image (1, 3, height, width)",
                hint="export it at a fixed size: `edgesod export --model NAME --weights FILE`",
            )
        recipe = own or _named(about.network if about is not None else model, precision, onnx, (shape[2], shape[3]))
        if about is None:
            _require_saliency(session, recipe, onnx)
    is_own = own is not None and "preprocessing" in own.model_fields_set
    if about is None and not is_own:
        fed = recipe.preprocessing
        _output.note(
            f"{onnx} does not say what it wants to be fed. It gets {fed.colour} divided by {fed.divide_by}, less {fed.mean}, "
            f"over {fed.std}, resized {fed.resize}; --model NAME or --recipe FILE may say otherwise"
        )
    return recipe if about is None or is_own else recipe.model_copy(update={"preprocessing": about.preprocessing})


def _require_saliency(session: Session, recipe: Recipe, onnx: Path) -> None:
    """Raise ``InputError`` where a network returns logits: cut off at 0 and 1, they would pass for a map."""
    from edgesod.processing.pictures import photograph
    from edgesod.processing.preprocess import preprocess

    image = session.inputs[0]
    if recipe.size_hw != image.shape[2:] or recipe.frame_hw is not None:
        return  # the runtime says what does not fit
    for name, found in session.run({image.name: preprocess(photograph(), recipe).astype(image.dtype)}).items():
        low, high = float(found.min()), float(found.max())
        if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # NaN neither
            raise InputError(
                f"{onnx} returns {name} from {low:.3g} to {high:.3g} for a photograph, and a saliency map is within [0, 1]",
                hint="put the sigmoid into the network before it is exported; `edgesod export` does",
            )


def _named(model: str | None, precision: Precision, onnx: Path, size_hw: tuple[int, int]) -> Recipe:
    """Return the recipe shipped for a model, else one made from the trainer's record of the network, else a plain one."""
    if model is not None and model in zoo.names():
        return recipe_for(model, precision).model_copy(update={"size_hw": size_hw})
    if model is not None:
        try:
            found: Recipe = from_weights().network_recipe(model, precision)
            return found.model_copy(update={"size_hw": size_hw})
        except (BackendError, UsageError):
            pass  # no torch here, or a network of the user's own
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in (model or onnx.stem).lower()).strip("-") or "model"
    return Recipe(model=name, size_hw=size_hw, precision=precision)
