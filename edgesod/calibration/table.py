"""The calibration table: the range of every activation tensor, tied to the ONNX file it was measured on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgesod.errors import InputError, StaleError
from edgesod.files import sha256_of, write_atomically
from edgesod.recipe import Preprocessing, RangeMethod, Recipe, problems

_Value = Annotated[float, Field(allow_inf_nan=False)]
Range = tuple[_Value, _Value]
"""Lowest and highest value."""


_HINT = "make one with `edgesod calibrate --onnx FILE --images DIR`"


class CalibrationTable(BaseModel):
    """What a network's tensors were seen to hold.

    One table serves both schemes of :func:`~edgesod.calibration.qdq.write_qdq`, which turn ranges into scales each in its
    own way.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    model: str
    onnx_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_hw: tuple[int, int]
    images: str
    """Names of the folders and tars the images came from; no paths, tables are shipped."""
    num_images: int = Field(ge=1)
    preprocessing: Preprocessing
    created: str
    """UTC, ISO 8601."""
    ranges: dict[str, dict[RangeMethod, Range]]
    """Tensor name → method → range."""

    def range_of(self, tensor: str, method: RangeMethod) -> Range:
        """Return the lowest and highest value of a tensor by a method.

        Raises:
            StaleError: The table has no such tensor, so it belongs to another network.
        """
        try:
            return self.ranges[tensor][method]
        except KeyError:
            raise StaleError(
                f"the calibration table of {self.model} has no {method} range of the tensor {tensor!r}", hint=_HINT
            ) from None

    def write(self, path: str | Path) -> None:
        """Write the table as JSON, whole or not at all.

        Raises:
            OutputError: It cannot be written.
        """
        head, tail = self.model_dump_json(exclude={"ranges"}, indent=1).removesuffix("\n}"), "\n }\n}\n"
        lines = (f"  {json.dumps(tensor)}: {json.dumps(by_method)}" for tensor, by_method in self.ranges.items())
        write_atomically(path, (head + ',\n "ranges": {\n' + ",\n".join(lines) + tail).encode())


def read_table(path: str | Path) -> CalibrationTable:
    """Read a calibration table.

    Raises:
        InputError: There is no such file, or it is not a valid table.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no calibration table at {path}", hint=_HINT)
    try:
        return CalibrationTable.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        raise InputError(f"{path} is not a valid calibration table: {problems(error)}", hint=_HINT) from error


def check_table(table: CalibrationTable, onnx_path: str | Path, recipe: Recipe) -> None:
    """Make sure that a table was measured on this very ONNX file, fed as the recipe says.

    Raises:
        StaleError: It was measured on another one, or on pictures prepared in another way.
    """
    if table.preprocessing != recipe.preprocessing:
        raise StaleError(
            f"the calibration table of {table.model} was measured with other preprocessing than {recipe.name} asks for",
            hint=f"calibrate again: `edgesod build … --calib DIR` or `edgesod calibrate --onnx {onnx_path} --images DIR`",
        )
    found = sha256_of(onnx_path)
    if found != table.onnx_sha256:
        raise StaleError(
            f"the calibration table of {table.model} belongs to an ONNX with sha256 {table.onnx_sha256[:12]}…, "
            f"{onnx_path} has {found[:12]}…",
            hint=f"calibrate again: `edgesod calibrate --onnx {onnx_path} --images DIR`",
        )
