"""From a weights file to what an engine is built from: the recipe the weights ask for, and their ONNX."""

from __future__ import annotations

from pathlib import Path

from edgesod.errors import InputError, UsageError
from edgesod.export import export_model
from edgesod.export.about import About, write_about
from edgesod.processing.pictures import photograph
from edgesod.processing.preprocess import preprocess
from edgesod.recipe import Precision, Recipe, recipe_for
from trainer import networks


def weights_recipe(
    weights: Path, precision: Precision, *, model: str | None = None, size: int | None = None, recipe: Recipe | None = None
) -> Recipe:
    """Return the recipe for a weights file.

    Weights trained here say which network they belong to and what it was fed. The authors' say neither: they are taken to be
    ``model``'s, fed as its authors feed it. Those of a network that ``model`` was derived from are ``model``'s too.

    Args:
        weights: State dict as :func:`trainer.networks.load_weights` takes it.
        precision: The recipe's.
        model: The network; where left out, what the file says.
        size: Height and width in pixels; the network's own where left out.
        recipe: A user's own, in place of precision and model; a preprocessing set in it wins over the file's.

    Raises:
        InputError: The file is missing or cannot be read.
        UsageError: ``model`` is no network, is another than the file names, or neither says which one it is.
    """
    model = recipe.model if recipe is not None else model
    if model is not None:
        networks.config(model)  # a misspelt name is the better complaint than a missing file
    about = networks.weights_metadata(weights)
    if about is None and model is None:
        raise UsageError(
            f"{weights} does not say which network it belongs to", hint=f"--model NAME, of {', '.join(networks.names())}"
        )
    if about is not None and model is not None and about.network not in (model, networks.config(model).derived_from):
        raise UsageError(f"{weights} holds weights of {about.network}, not of {model}", hint=f"--model {about.network}")
    name = about.network if model is None else model
    found = recipe or network_recipe(name, precision)
    if recipe is None or "preprocessing" not in recipe.model_fields_set:
        fed = about.preprocessing if about is not None else networks.config(name).preprocessing
        found = found.model_copy(update={"preprocessing": fed})
    return found.model_copy(update={"size_hw": (size, size)}) if size is not None else found


def network_recipe(model: str, precision: Precision) -> Recipe:
    """Return the shipped recipe of a network, and where there is none one that feeds it as its authors do.

    Raises:
        UsageError: There is no network of that name.
    """
    config = networks.config(model)
    try:
        return recipe_for(model, precision)
    except InputError:
        return Recipe(model=model, size_hw=config.size_hw, precision=precision, preprocessing=config.preprocessing)


def export_weights(recipe: Recipe, weights: Path, target: Path) -> float:
    """Export ``recipe.model`` with the weights of a file at the recipe's size; return the largest difference to torch.

    The file says which network it is and what it wants to be fed (:mod:`edgesod.export.about`).

    Raises:
        InputError: The weights cannot be read or are another network's, or the network does not run at this size.
        CheckFailed: The ONNX differs from torch; nothing is written.
        OutputError: The file cannot be written.
    """
    network = networks.create(recipe.model)
    networks.load_weights(network, weights)
    report = export_model(network, recipe.size_hw, target, preprocess(photograph(), recipe))
    write_about(target, target, About(recipe.model, recipe.preprocessing))
    return report.largest
