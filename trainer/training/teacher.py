"""A trained network that another one learns from."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import Tensor

from edgesod import zoo
from edgesod.files import sha256_of
from trainer import networks
from trainer.data.loader import normalise_batch
from trainer.export import weights_recipe

from .recipe import TeacherRecipe


class Teacher:
    """A network in evaluation mode that says what it sees in a batch.

    Args:
        recipe: Which network, and its weights.
        fabric: Where to compute, and in which precision.

    Attributes:
        about: What a checkpoint's record says of it: ``network`` and the ``sha256`` of its weights.

    Raises:
        UsageError: There is no network of that name, or the weights are another's.
        InputError: They are missing or cannot be read, or no such model is shipped.
    """

    def __init__(self, recipe: TeacherRecipe, fabric: Fabric) -> None:
        weights = recipe.weights or zoo.shipped(recipe.network).weights
        self._fed = weights_recipe(weights, "fp32", model=recipe.network).preprocessing
        self._fabric = fabric
        network = networks.create(recipe.network)
        networks.load_weights(network, weights)
        self._network = network.to(fabric.device, memory_format=torch.channels_last).eval().requires_grad_(False)
        self.about = {"network": recipe.network, "sha256": sha256_of(weights)}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return its prediction, float32 ``(N, 1, H, W)`` in [0, 1], for uint8 RGB ``(N, 3, H, W)`` on the device."""
        with self._fabric.autocast():
            prediction = self._network(normalise_batch(images, self._fed))[0]
        return torch.sigmoid(prediction.float())
