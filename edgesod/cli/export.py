"""``edgesod export``: torch weights to a simplified FP32 ONNX that was compared with torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgesod.cli import _options, _output
from edgesod.errors import UsageError

NAME = "export"


def command(
    weights: Annotated[Path, typer.Option(help="State dict (.safetensors, .pth), trained here or the authors'.")],
    model: Annotated[
        str | None, typer.Option(help="The network the weights belong to; weights trained here say so themselves.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=32, help="Input height and width in pixels; the network's own by default.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The ONNX file; <model>-<size>.onnx by default.")] = None,
    as_json: _options.Json = False,
) -> None:
    """Export weights to ONNX and compare it with torch.

    Opset 17, fixed shape, simplified by onnxsim; each step is compared. Prints the ONNX file.
    """
    from edgesod.cli._source import from_weights

    if out is not None and out.suffix != ".onnx":
        raise UsageError(f"--out {out} names no ONNX file", hint=f"--out {out.parent / (out.stem or 'model')}.onnx")
    made = from_weights()
    recipe = made.weights_recipe(weights, "fp32", model=model, size=size)
    path = out or Path(f"{recipe.stem}.onnx")
    with _output.progress(f"export {recipe.model}") as update:
        update(0, None)  # how far the exporter is nobody can tell; a bar that moves says that it works
        difference = made.export_weights(recipe, weights, path)
    if as_json:
        _output.result_json({"onnx": str(path), "largest_difference": difference})
        return
    _output.note(f"torch and ONNX differ by at most {difference:.1e}")
    _output.result(str(path))
