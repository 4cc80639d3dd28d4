"""What a training run is: a TOML file in ``trainer/recipes/``, read once and stored in every checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from edgesod.errors import InputError, UsageError
from edgesod.files import read_toml
from edgesod.processing.resize import ResizeMode
from edgesod.recipe import problems
from trainer.data.transforms import Augmentation
from trainer.losses import TAUGHT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RECIPES = Path(__file__).parents[1] / "recipes"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Stage(_Strict):
    """A stretch of training at one picture size; the next stage begins when ``images`` have been seen in this one."""

    images: int = Field(gt=0)
    size: int = Field(gt=0)
    """Height and width in pixels; which ones are possible depends on the network."""
    batch: int = Field(gt=0)
    """Pictures of one forward pass, per process: what batch normalisation sees."""
    accumulate: int = Field(default=1, gt=0)
    """Forward passes whose mean gradient makes one step. Batch normalisation still sees each pass alone."""
    lr: float = Field(gt=0)
    """Learning rate at the stage's start."""
    lr_end: float | None = Field(default=None, ge=0)
    """Learning rate at its end, reached along a cosine; constant when left out."""
    min_crop: float | None = Field(default=None, gt=0, le=1)
    """The augmentation's, for this stage alone: near the end pictures may be seen more as they will be when it counts, whole."""


class TeacherRecipe(_Strict):
    """A trained network whose prediction the loss term ``distill`` pulls every output to."""

    network: str
    weights: Path | None = None
    """State dict file; the package's own weights of that network when left out."""


class TrainingRecipe(_Strict):
    """Everything that decides the outcome of a run, besides the pictures themselves."""

    network: str
    stages: tuple[Stage, ...] = Field(min_length=1)
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    loss: dict[str, float] = {"bce": 1.0}
    """Term → weight; the terms are those of :mod:`trainer.losses`."""
    teacher: TeacherRecipe | None = None
    """Goes with the loss term ``distill``, and that with it."""
    output_weights: tuple[float, ...] | None = None
    """One weight per output of the network, the prediction first; 1 each when left out."""
    optimizer: Literal["sgd", "adam", "adamw", "muon"] = "adamw"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of ``sgd``; the others have their authors'."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Added to the gradient by ``sgd`` and ``adam``, decoupled from it by ``adamw`` and ``muon``."""
    lr_shares: dict[str, float] = {}
    """Pattern of parameter names → multiple of the learning rate; the first that matches counts."""
    warmup_images: int = Field(default=0, ge=0)
    """Images over which the learning rate rises from zero."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest norm of the whole gradient; a longer one is scaled down to it."""
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    """Of the averaged weights; 0 makes them the trained ones."""
    log_every: int = Field(default=25, gt=0)
    """Steps between two lines of the log."""
    validate_every: int = Field(default=5000, gt=0)
    """Images between two validations."""
    validate_images: int = Field(default=100, gt=0)
    """Held-out pictures of a validation, at least, evenly spread; all where there are fewer."""
    checkpoint_every: int = Field(default=2000, gt=0)
    """Images between two checkpoints."""
    resize: ResizeMode = "halve-linear"
    """How pictures come to a stage's size, in training and ever after: ``linear`` is the authors' way."""
    divide_by: Annotated[Literal["255", "max"] | None, BeforeValidator(lambda given: "255" if given == 255 else given)] = None
    """What pixels are divided by, in training and ever after: ``max`` is each picture's largest value, as the authors of U²-Net and
    BASNet have it; what the network's record says when left out."""
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _shares_fit_the_optimizer(self) -> TrainingRecipe:
        if self.lr_shares and self.optimizer == "muon":
            raise ValueError("lr_shares do not go with muon, which shares the learning rate out itself")
        return self

    @model_validator(mode="after")
    def _teacher_is_heard(self) -> TrainingRecipe:
        if (self.teacher is not None) != bool(TAUGHT & self.loss.keys()):
            raise ValueError("a teacher goes with the loss term distill, and that with a teacher")
        return self

    @model_validator(mode="after")
    def _windows_fit(self) -> TrainingRecipe:
        for k, stage in enumerate(self.stages):
            if self.augmentation.rescale is not None and stage.min_crop is not None:
                raise ValueError(f"stage {k + 1} has a min_crop, and the recipe crops by rescale: these are two ways to crop")
            if self.augmentation.rescale is not None and stage.size > self.augmentation.rescale:
                raise ValueError(
                    f"stage {k + 1} cuts {stage.size} pixels out of pictures rescaled to {self.augmentation.rescale}"
                )
        return self

    @property
    def images(self) -> int:
        """Images of the whole run."""
        return sum(stage.images for stage in self.stages)

    def validation_size(self, stage: Stage) -> int:
        """Return the side, in pixels, of hold-out pictures: ``rescale``, where a stage sees windows cut out of such, else the stage's."""
        return self.augmentation.rescale or stage.size

    def augmentation_in(self, stage: Stage) -> Augmentation:
        """Return the augmentation, with the stage's own crop where it has one."""
        return (
            self.augmentation if stage.min_crop is None else self.augmentation.model_copy(update={"min_crop": stage.min_crop})
        )

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


def with_settings(recipe: TrainingRecipe, settings: Sequence[str]) -> TrainingRecipe:
    """Return a recipe with some of its values replaced.

    Args:
        recipe: What to start from.
        settings: ``KEY=VALUE`` each, the value in TOML's notation, quotes optional. A key is a field, an entry of one of its
            tables (``augmentation.flip=0``), or a field of its stages, which sets it in every stage (``batch=2``).

    Raises:
        UsageError: A key that there is none of, or a value that does not fit.
    """
    values = recipe.model_dump(mode="json", exclude_unset=True)
    for setting in settings:
        key, is_there, text = setting.partition("=")
        name, _, entry = key.strip().partition(".")
        if not is_there or name not in TrainingRecipe.model_fields.keys() | Stage.model_fields.keys():
            known = ", ".join((*TrainingRecipe.model_fields, *Stage.model_fields))
            raise UsageError(f"--set {setting}: it takes KEY=VALUE, and the keys are {known}", hint="--set batch=2")
        if entry:
            table = values.get(name)
            values[name] = (table if isinstance(table, dict) else {}) | {entry: _value(text)}
            continue
        for target in [values] if name in TrainingRecipe.model_fields else values["stages"]:
            target[name] = _value(text)
    try:
        return TrainingRecipe.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"--set {' --set '.join(settings)}: {problems(error)}") from error


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()
