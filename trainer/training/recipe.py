"""What a training run is: a TOML file in ``trainer/recipes/``, read once and stored in every checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgesod.errors import InputError
from edgesod.files import read_toml
from edgesod.recipe import problems

RECIPES = Path(__file__).parents[1] / "recipes"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Stage(_Strict):
    """A stretch of training at one picture size; the next stage begins when ``images`` have been seen in this one."""

    images: int = Field(gt=0)
    size: int = Field(gt=0, multiple_of=32)
    batch: int = Field(gt=0)
    lr: float = Field(gt=0)
    """Learning rate at the stage's start."""
    lr_end: float | None = Field(default=None, ge=0)
    """Learning rate at its end, reached along a cosine; constant when left out."""


class AugmentationRecipe(_Strict):
    """See :class:`trainer.data.transforms.Augmentation`."""

    min_crop: float = Field(default=0.75, gt=0, le=1)
    flip: float = Field(default=0.5, ge=0, le=1)
    brightness: float = Field(default=0.25, ge=0, lt=1)
    contrast: float = Field(default=0.25, ge=0, lt=1)
    saturation: float = Field(default=0.3, ge=0, lt=1)
    grey: float = Field(default=0.05, ge=0, le=1)


class TrainingRecipe(_Strict):
    """Everything that decides the outcome of a run, besides the pictures themselves."""

    network: str
    stages: tuple[Stage, ...] = Field(min_length=1)
    seed: int = 0
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    loss: dict[str, float] = {"bce": 1.0}
    """Term → weight; the terms are those of :mod:`trainer.losses`."""
    output_weights: tuple[float, ...] | None = None
    optimizer: Literal["adam", "adamw"] = "adamw"
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_images: int = Field(default=0, ge=0)
    clip_norm: float | None = Field(default=None, gt=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    validate_every: int = Field(default=5000, gt=0)
    """Images between two validations."""
    validate_images: int = Field(default=100, gt=0)
    checkpoint_every: int = Field(default=2000, gt=0)
    """Images between two checkpoints."""
    augmentation: AugmentationRecipe = AugmentationRecipe()

    @property
    def images(self) -> int:
        """Images of the whole run."""
        return sum(stage.images for stage in self.stages)

    def stage_at(self, seen: int) -> tuple[Stage, int]:
        """Return the stage that image number ``seen`` falls in and how many images into it that is."""
        for stage in self.stages:
            if seen < stage.images:
                return stage, seen
            seen -= stage.images
        return self.stages[-1], self.stages[-1].images


def load_recipe(name_or_path: str) -> TrainingRecipe:
    """Read a recipe by file path or by the name of a shipped one."""
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = RECIPES / f"{name_or_path}.toml"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise InputError(f"no training recipe at {path}", hint=f"shipped recipes: {there}")
    try:
        return TrainingRecipe.model_validate(read_toml(path))
    except ValidationError as error:
        raise InputError(f"{path} is not a training recipe: {problems(error)}") from error
