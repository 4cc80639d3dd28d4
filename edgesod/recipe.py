"""What we want: a recipe names a network, a size, a precision, and everything done to a picture before and after.

Recipes are TOML files named ``<model>-<size>-<precision>.toml`` in ``engines/recipes/`` (inside an installed package:
``edgesod/_recipes/``). What came of one is recorded in a :class:`~edgesod.manifest.Manifest`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgesod import assets
from edgesod.errors import InputError
from edgesod.files import read_toml

Precision = Literal["fp32", "fp16", "bf16", "int8"]

RangeMethod = Literal[
    "minmax",
    "percentile-99.9",
    "percentile-99.99",
    "percentile-99.999",
    "mse",
    "entropy",
    "mse-signed",
    "entropy-signed",
]
"""How an activation's range is cut.

``percentile-p`` leaves out (100 − p)/2 % of the values at either end; ``mse`` and ``entropy`` weigh clipping against rounding
(:mod:`edgesod.calibration.clipping`), as ``-signed`` for the symmetric steps of TensorRT.
"""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""RGB channel means in [0, 1]."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""RGB channel standard deviations in [0, 1]."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Preprocessing(_Strict):
    """From a frame to the input tensor."""

    resize: Literal["halve-linear", "linear"] = "halve-linear"
    """``halve-linear`` for our weights, ``linear`` for the authors' (:mod:`edgesod.processing.resize`)."""
    colour: Literal["RGB", "BGR"] = "RGB"
    """Channel order of the tensor; frames are BGR."""
    divide_by: Literal["255", "max", "1"] = "255"
    """``max`` divides by the image's own largest value, as the authors' scripts do: paper parity only."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Subtracted after the division, in tensor channel order."""
    std: tuple[float, float, float] = IMAGENET_STD


class Postprocessing(_Strict):
    """From the output map to mask."""

    threshold: float = Field(default=0.5, gt=0, lt=1)
    stretch: bool = False
    """Min–max stretch each map: paper parity only, it makes an empty scene's noise fill [0, 1]."""


class Quantisation(_Strict):
    """How activations and weights become 8-bit integers."""

    method: RangeMethod = "percentile-99.999"
    """Which of the calibration table's ranges is used."""
    float_nodes: tuple[str, ...] = ()
    """Names of ONNX nodes (shell patterns) that stay in floating point."""


class GateBounds(_Strict):
    """How far an engine may drift from FP32 before its build fails."""

    map_mae: float = Field(default=0.02, gt=0)
    """Mean absolute difference between the engine's and FP32's maps, averaged over the images."""
    mae_drift: float = Field(default=0.005, gt=0)
    """Largest change of MAE against ground truth, where masks are given."""
    max_f_drift: float = Field(default=0.01, gt=0)
    """Largest change of max-F against ground truth, where masks are given."""


class Recipe(_Strict):
    """Everything that decides what an engine is, besides weights and calibration images."""

    model: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    size_hw: tuple[int, int]
    precision: Precision
    frame_hw: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
    """Height and width of the frames that the network itself takes, uint8 BGR, and resizes and normalises
    (:mod:`edgesod.export.frame_input`); ``None`` where that is done before it, for frames of any size."""
    preprocessing: Preprocessing = Preprocessing()
    postprocessing: Postprocessing = Postprocessing()
    quantisation: Quantisation = Quantisation()
    gate: GateBounds = GateBounds()

    @property
    def stem(self) -> str:
        """``<model>-<size>``, the name of what is the same at every precision: the ONNX and the calibration table."""
        height, width = self.size_hw
        return f"{self.model}-{height if height == width else f'{height}x{width}'}"

    @property
    def name(self) -> str:
        """``<model>-<size>-<precision>``, the engine folder's name; with ``-<width>x<height>`` where frames have one size."""
        frames = f"-{self.frame_hw[1]}x{self.frame_hw[0]}" if self.frame_hw is not None else ""
        return f"{self.stem}-{self.precision}{frames}"


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe by the name of a shipped one or by the path of a TOML file.

    Raises:
        InputError: There is no such recipe, or it is not a valid one.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = assets.recipes() / f"{name_or_path}.toml"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in assets.recipes().glob("*.toml")))
        raise InputError(f"there is no recipe at {path}", hint=f"shipped recipes: {there}")
    try:
        return Recipe.model_validate(read_toml(path))
    except ValidationError as error:
        raise InputError(f"{path} is not a valid recipe: {problems(error)}") from error


def recipe_for(model: str, precision: Precision) -> Recipe:
    """Return the shipped recipe of a model at a precision.

    Raises:
        InputError: The model has no shipped recipe at that precision.
    """
    found = sorted(assets.recipes().glob(f"{model}-[0-9]*-{precision}.toml"))
    if not found:
        raise InputError(f"there is no {precision} recipe for a model {model!r}", hint="see `edgesod models`")
    return load_recipe(found[0])


def problems(error: ValidationError) -> str:
    """Return what pydantic found wrong in one line: the first problem, and how many more there are."""
    first, *more = error.errors(include_url=False)
    where = ".".join(str(part) for part in first["loc"])
    seen = "there is no such key" if first["type"] == "extra_forbidden" else first["msg"]
    return f"{where + ': ' if where else ''}{seen}" + (f" (and {len(more)} more)" if more else "")
