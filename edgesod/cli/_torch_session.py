"""A checkpoint run by torch itself, behind the face of every engine; needs torch."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from edgesod.cli._source import from_weights
from edgesod.export.torch_export import run_torch
from edgesod.recipe import Recipe
from edgesod.runtime import Runtime, Session
from edgesod.runtime.session import Arrays
from edgesod.threads import resolve_threads
from edgesod.types import TensorSpec

NAME = "torch"


class TorchSession(Session):
    """A network of the trainer's, run as it is: eager, FP32, on the CPU.

    Args:
        network: What :func:`trainer.networks.create` returned, with its weights.
        size_hw: Height and width of its input.
    """

    def __init__(self, network: Any, size_hw: tuple[int, int]) -> None:
        inputs, outputs = TensorSpec("image", (1, 3, *size_hw), "float32"), TensorSpec("saliency", (1, 1, *size_hw), "float32")
        super().__init__(NAME, [inputs], [outputs])
        self._network = network.eval()

    def _run(self, feeds: Arrays) -> Arrays:
        return {"saliency": run_torch(self._network, feeds["image"])}

    def _close(self) -> None:
        self._network = None


def open_torch(weights: Path, model: str | None, threads: int | None) -> Runtime:
    """Open a weights file as a runtime.

    Args:
        weights: State dict as :func:`trainer.networks.load_weights` takes it.
        model: The network; where left out, what the file says.
        threads: torch's threads, which are the process's; every physical core it may use where ``None``.

    Raises:
        BackendError: torch is not installed.
        InputError: The weights cannot be read or are another network's.
        UsageError: Neither ``model`` nor the file says which network it is.
    """
    recipe: Recipe = from_weights().weights_recipe(weights, "fp32", model=model)
    networks: Any = import_module("trainer.networks")
    network = networks.create(recipe.model)
    networks.load_weights(network, weights)
    import_module("torch").set_num_threads(resolve_threads(threads))
    return Runtime.from_session(TorchSession(network, recipe.size_hw), recipe)
