"""A training recipe and a network small enough for tests, and the weights a run ended with."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file
from torch import nn

from edgesod.recipe import Preprocessing
from trainer.networks.config import NetworkConfig, Paper
from trainer.networks.resnet import Backbone
from trainer.training.checkpoint import checkpoints
from trainer.training.recipe import TrainingRecipe


def tiny_recipe(images: int = 32, stage: dict[str, object] | None = None, **changes: object) -> TrainingRecipe:
    """Return a recipe of one stage, U²-NetP at 32×32 in batches of four; ``stage`` and ``changes`` replace parts of it."""
    values: dict[str, object] = {
        "network": "u2netp",
        "stages": [{"images": images, "size": 32, "batch": 4, "lr": 1e-3} | (stage or {})],
        "precision": "fp32",
        "validate_every": 10_000,
        "validate_images": 2,
        "checkpoint_every": 16,
        "loss": {"bce": 1.0, "iou": 1.0},
        "clip_norm": 5.0,
    }
    return TrainingRecipe.model_validate(values | changes)


def last_weights(run: Path) -> dict[str, torch.Tensor]:
    """Return every tensor of a run's newest checkpoint, the optimiser's included."""
    newest = checkpoints(run)[-1]
    return {f"{file.stem}/{key}": value for file in newest.glob("*.safetensors") for key, value in load_file(file).items()}


class TinyNet(nn.Module):
    """Two convolutions and two outputs, the first convolution a backbone that freezes batch normalisation."""

    backbone: ClassVar = Backbone(keys={"stem.": ""}, unused=(), freezes_batch_norm=True)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return list(self.head(self.stem(x)).split(1, 1))

    def train(self, mode: bool = True) -> TinyNet:
        super().train(mode)
        self.stem[1].train(mode and self.stem[1].weight.requires_grad)
        return self


TINY = NetworkConfig(
    name="tiny",
    constructor=TinyNet,
    size_hw=(32, 32),
    preprocessing=Preprocessing(),
    outputs=("fine", "coarse"),
    num_parameters=384,
    repository="",
    licence="",
    paper=Paper("", ""),
)
"""A network for tests of the loop; ``monkeypatch.setitem(registry._CONFIGS, "tiny", TINY)`` makes it known."""
