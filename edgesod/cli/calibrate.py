"""``edgesod calibrate``: activation ranges of a network over a folder of images, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgesod.cli import _options, _output

NAME = "calibrate"


def command(
    images: Annotated[Path, typer.Option(help="Folder of images like the ones the engine will see; 32 or more.")],
    model: _options.Model = None,
    weights: Annotated[Path | None, typer.Option(help="Your own weights of --model; needs torch.")] = None,
    onnx: Annotated[Path | None, typer.Option(help="Your own FP32 ONNX.")] = None,
    size: Annotated[int | None, typer.Option(min=32, help="With --weights: input height and width in pixels.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Use at most this many images, evenly spread over the folder.")] = 128,
    out: Annotated[Path | None, typer.Option(help="The table's file; <model>-<size>.json by default.")] = None,
    as_json: _options.Json = False,
) -> None:
    """Run a network over images once and record each tensor's range; prints the table's file."""
    from edgesod.calibration import calibrate
    from edgesod.cli._source import recipe_and_onnx

    source = recipe_and_onnx(model=model, precision="int8", weights=weights, onnx=onnx, size=size)
    with source as (recipe, fp32_onnx), _output.progress("calibrate") as update:
        table = calibrate(fp32_onnx, recipe, images, limit=limit, on_progress=update)
    path = out or Path(f"{recipe.stem}.json")
    table.write(path)
    if as_json:
        _output.result_json(
            {"table": str(path), "images": table.num_images, "tensors": len(table.ranges), "onnx_sha256": table.onnx_sha256}
        )
        return
    _output.note(f"{len(table.ranges)} tensors over {table.num_images} images")
    _output.result(str(path))
