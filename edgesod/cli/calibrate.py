"""``edgesod calibrate``: activation ranges of a network over a folder of images, and what they mean for INT8 and FP16."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgesod.cli import _options, _output
from edgesod.errors import InputError, UsageError

if TYPE_CHECKING:
    from edgesod.calibration.table import CalibrationTable
    from edgesod.recipe import Recipe

NAME = "calibrate"

_ROWS = 20
_LIMIT = 128
_FEW = 32


class Scheme(str, Enum):
    """See :mod:`edgesod.calibration.schemes`."""

    cpu = "cpu"
    tensorrt = "tensorrt"


def command(
    images: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder or tar of images like the ones the engine will see, 32 or more; masks of a set are left out; may be given "
            "several times."
        ),
    ] = None,
    model: _options.Model = None,
    weights: Annotated[Path | None, typer.Option(help="Your own weights of --model; needs torch.")] = None,
    onnx: Annotated[Path | None, typer.Option(help="Your own FP32 ONNX.")] = None,
    recipe_file: Annotated[
        Path | None, typer.Option("--recipe", help="A recipe of your own (TOML) in place of the model's.")
    ] = None,
    size: Annotated[int | None, typer.Option(min=32, help="With --weights: input height and width in pixels.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Measure at most this many images, evenly spread over all; 128 by default.")
    ] = None,
    table: Annotated[Path | None, typer.Option(help="A table made before; then none is measured.")] = None,
    ranges: Annotated[bool, typer.Option("--ranges", help="Check every layer's largest value against FP16's 65504.")] = False,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Quantise one layer at a time and measure how far the map drifts.")
    ] = False,
    sensitivity_images: Annotated[
        int | None, typer.Option(min=1, help="How many images --sensitivity compares on; 8 by default.")
    ] = None,
    scheme: Annotated[
        Scheme | None,
        typer.Option(
            help="How --sensitivity quantises: cpu, the default, has unsigned activations, tensorrt symmetric signed ones."
        ),
    ] = None,
    threads: _options.Threads = None,
    out: Annotated[Path | None, typer.Option(help="The table's file; <model>-<size>.json by default.")] = None,
    as_json: _options.Json = False,
) -> None:
    """Run a network over images and record the range of each tensor.

    Prints the file of the calibration table. Beside it --ranges writes <table>-ranges.csv, and --sensitivity <table>-sensitivity.csv and
    .png, <table> as --out names it. Until these are there, <table>-sensitivity.partial has the layers that are done, and the next run
    goes on from there.
    """
    if table is not None:
        _require_use(images, ranges, sensitivity, limit, threads)
    if not sensitivity:
        _refuse(
            "they are about --sensitivity", {"--scheme": scheme and scheme.value, "--sensitivity-images": sensitivity_images}
        )
    places = _named(images) if table is None or sensitivity else []
    from edgesod.calibration import calibrate
    from edgesod.calibration.table import check_table, read_table
    from edgesod.cli._source import recipe_and_onnx
    from edgesod.files import Replacement

    source = recipe_and_onnx(model=model, precision="int8", weights=weights, onnx=onnx, recipe_file=recipe_file, size=size)
    if out is not None and out.suffix != ".json":
        raise UsageError(
            f"--out {out} names no JSON file, which a table is", hint=f"--out {out.parent / (out.stem or 'table')}.json"
        )
    with source as (recipe, fp32_onnx):
        path = out or Path(f"{recipe.stem}.json")
        Replacement(path).discard()  # a place that cannot be written is worth knowing before an hour of measuring
        if table is not None:
            found = read_table(table)
            check_table(found, fp32_onnx, recipe)
        else:
            with _output.progress("calibrate") as update:
                found = calibrate(fp32_onnx, recipe, places, limit=limit or _LIMIT, threads=threads, on_progress=update)
            found.write(path)
            if found.num_images < _FEW:
                _output.note(
                    f"warning: {found.num_images} images are few: other images may leave these ranges; use {_FEW} or more"
                )
        result: dict[str, Any] = {
            "table": str(table or path),
            "images": found.num_images,
            "tensors": len(found.ranges),
            "onnx_sha256": found.onnx_sha256,
        }
        if ranges:
            result["ranges"] = _check_ranges(fp32_onnx, found, path, as_json)
        if sensitivity:
            kind, count = (scheme or Scheme.cpu).value, sensitivity_images or 8
            result["sensitivity"] = _measure_sensitivity(
                fp32_onnx, recipe, found, path, table or path, places, count, kind, threads, as_json
            )
    if as_json:
        _output.result_json(result)
        return
    _output.note(f"{len(found.ranges)} tensors over {found.num_images} images")
    if not (ranges or sensitivity):
        _output.result(str(path))


def _require_use(images: list[Path] | None, ranges: bool, sensitivity: bool, limit: int | None, threads: int | None) -> None:
    """Raise ``UsageError`` for options that have nothing to act on beside ``--table``."""
    if not (ranges or sensitivity):
        raise UsageError(
            "--table names a table made before, and nothing was asked of it", hint="--ranges, --sensitivity or both"
        )
    if limit is not None:
        raise UsageError(
            f"--limit {limit} is about measuring a table, and --table names one made before",
            hint="leave out one of them; --sensitivity-images limits what --sensitivity compares on",
        )
    if not sensitivity:
        _refuse(
            "--ranges reads the table and runs nothing",
            {"--images": " ".join(map(str, images)) if images else None, "--threads": threads},
        )


def _refuse(why: str, options: dict[str, object]) -> None:
    """Raise ``UsageError`` for those options that were given, which would do nothing."""
    unused = [f"{name} {said}" for name, said in options.items() if said is not None]
    if unused:
        raise UsageError(f"nothing would come of {' and '.join(unused)}: {why}", hint="leave out what is named")


def _named(images: list[Path] | None) -> list[Path]:
    if not images:
        raise UsageError("calibrate needs images to run the network on", hint="--images FOLDER, 32 or more like those to come")
    return images


def _check_ranges(onnx: Path, table: CalibrationTable, path: Path, as_json: bool) -> dict[str, Any]:
    from edgesod.calibration.headroom import headroom, write_headroom

    layers = headroom(onnx, table)
    report = path.with_name(f"{path.stem}-ranges.csv")
    write_headroom(layers, report)
    kept = [layer.layer for layer in layers if not layer.fits]
    if not as_json:
        by_size = sorted(layers, key=lambda layer: -layer.largest)[:_ROWS]
        rows = [(layer.layer, layer.op_type, f"{layer.largest:.4g}", f"{layer.factor:.4g}", layer.verdict) for layer in by_size]
        _output.table(
            f"largest of {len(layers)} layers over {table.num_images} images, all in {report}",
            ("layer", "op", "largest value", "65504 ÷ it", "FP16"),
            rows,
        )
        _output.note(f"{len(kept)} of {len(layers)} layers stay in FP32 when an FP16 engine is built with this table")
    return {"csv": str(report), "layers": len(layers), "largest": max(layer.largest for layer in layers), "stay_fp32": kept}


def _measure_sensitivity(
    onnx: Path,
    recipe: Recipe,
    table: CalibrationTable,
    path: Path,
    table_path: Path,
    places: list[Path],
    num_images: int,
    scheme: str,
    threads: int | None,
    as_json: bool,
) -> dict[str, Any]:
    from edgesod.calibration.images import CalibrationImages
    from edgesod.calibration.sensitivity import draw_drifts, layer_drifts, write_drifts

    method = recipe.quantisation.method
    images = CalibrationImages(places, recipe, num_images)
    report, picture, kept = (path.with_name(f"{path.stem}-sensitivity{suffix}") for suffix in (".csv", ".png", ".partial"))
    try:
        with _output.progress("sensitivity") as update:
            drifts = layer_drifts(
                onnx,
                table,
                method,
                images,
                scheme=scheme,  # type: ignore[arg-type]
                threads=threads,
                keep=kept,
                on_progress=update,
            )
    except KeyboardInterrupt:
        if kept.is_file():
            _output.note(
                f"stopped: {kept} has the layers that are done, and the same command with --table {table_path} goes on from there"
            )
        raise
    if not drifts:
        raise InputError(
            f"{onnx.name} has no layer to measure: a convolution that makes a map stays in float",
            hint="leave out --sensitivity",
        )
    write_drifts(drifts, report)
    measured = f"{recipe.stem}, ONNX {table.onnx_sha256[:12]}, {scheme} scheme"
    title = f"{measured}, {method} ranges of {table.num_images} images, drift over {images.num_read}"
    draw_drifts(drifts, picture, title)
    kept.unlink(missing_ok=True)
    if not as_json:
        worst = sorted(drifts, key=lambda layer: -layer.drift)[:_ROWS]
        rows = [(layer.layer, f"{layer.drift:.5f}", f"{layer.worst:.5f}", f"{100 * layer.mac_share:.2f} %") for layer in worst]
        _output.table(
            f"{title}; all {len(drifts)} layers in {report}, drawn in {picture}",
            ("layer quantised alone", "drift", "worst image", "multiplications"),
            rows,
        )
    return {
        "csv": str(report),
        "picture": str(picture),
        "method": method,
        "scheme": scheme,
        "images": images.num_read,
        "drift": {layer.layer: layer.drift for layer in drifts},
    }
