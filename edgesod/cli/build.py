"""``edgesod build``: weights or ONNX to a checked engine for this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgesod.cli import _options, _output
from edgesod.errors import UsageError

NAME = "build"


def command(
    model: _options.Model = None,
    fp32: _options.Fp32 = False,
    fp16: _options.Fp16 = False,
    bf16: _options.Bf16 = False,
    int8: _options.Int8 = False,
    recipe_file: Annotated[
        Path | None, typer.Option("--recipe", help="A recipe of your own (TOML) in place of model and precision.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Your own weights of --model (.pth, .safetensors); needs torch.")] = None,
    onnx: Annotated[Path | None, typer.Option(help="Your own FP32 ONNX.")] = None,
    size: Annotated[int | None, typer.Option(min=32, help="With --weights: input height and width in pixels.")] = None,
    calib: Annotated[
        list[Path] | None,
        typer.Option(
            help="INT8, FP16: a table from `edgesod calibrate`, or a folder or tar of images to calibrate on; several times for more."
        ),
    ] = None,
    verify: Annotated[
        list[Path] | None,
        typer.Option(
            help="Images for the check, with masks if you have them (images/ and masks/, or a tar); several times for parts of a set."
        ),
    ] = None,
    backend: _options.Backend = "auto",
    frame_input: _options.FrameInput = None,
    typing: _options.Typing = "auto",
    int8_route: _options.Int8Route = "auto",
    workspace: _options.Workspace = None,
    opt_level: _options.OptLevel = None,
    compatibility: _options.Compatibility = "none",
    version_compatible: _options.VersionCompatible = False,
    dla: _options.Dla = None,
    batch: _options.Batch = "1",
    threads: _options.Threads = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the engine's folder goes; by default $EDGESOD_ENGINES, else engines/.")
    ] = None,
    as_json: _options.Json = False,
) -> None:
    """Build an engine and check it against FP32 on real images.

    Prints the engine's folder. By default it builds the shipped U²-NetP in INT8. An engine that gives non-finite values, or drifts past the
    recipe's bounds, fails the build, and nothing is left behind.
    """
    from edgesod import assets
    from edgesod.builder import build
    from edgesod.cli._signals import sigterm_as_ctrl_c
    from edgesod.cli._source import recipe_and_onnx
    from edgesod.manifest import read_manifest

    precision = _options.precision_from(fp32=fp32, fp16=fp16, bf16=bf16, int8=int8)
    if recipe_file is not None and precision is not None:
        raise UsageError("--recipe names the precision already", hint=f"leave out --{precision}")
    tensorrt = _options.tensorrt_options(
        typing=typing,
        int8_route=int8_route,
        workspace=workspace,
        opt_level=opt_level,
        compatibility=compatibility,
        version_compatible=version_compatible,
        dla=dla,
        batch=batch,
    )
    source = recipe_and_onnx(
        model=model, precision=precision or "int8", recipe_file=recipe_file, weights=weights, onnx=onnx, size=size
    )
    # a service that is stopped, too, leaves no half-built folder behind
    with sigterm_as_ctrl_c(), source as (recipe, fp32_onnx), _output.progress("build") as update:
        if frame_input is not None:
            recipe = recipe.model_copy(update={"frame_hw": _options.frame_hw(frame_input)})
        folder = build(
            recipe,
            fp32_onnx,
            table=calib,
            verify=verify,
            backend=backend,
            tensorrt=tensorrt,
            threads=threads,
            root=out or assets.engines_root(),
            on_step=_output.note,
            on_progress=update,
        )
    manifest = read_manifest(folder)
    gate = manifest.gate
    for warning in gate.warnings:
        _output.note(f"warning: {warning}")
    if as_json:
        drift = {"map_mae": gate.map_mae, "mask_iou": gate.mask_iou, "mae": gate.mae_drift, "max_f": gate.max_f_drift}
        _output.result_json(
            {
                "engine": str(folder),
                "backend": manifest.backend,
                "precision": manifest.precision,
                "drift": drift,
                "speedup": gate.speedup,
            }
        )
        return
    _output.note(
        f"gate passed on {gate.n} images ({gate.images}): maps differ by {gate.map_mae:.4f}, masks agree to IoU {gate.mask_iou:.3f}"
        + (f", max-F drift {gate.max_f_drift:.4f}, MAE drift {gate.mae_drift:.4f}" if gate.max_f_drift is not None else "")
    )
    _output.note(
        f"{gate.latency_ms:.1f} ms a frame, {gate.speedup:.2f} times ONNX Runtime FP32 ({gate.fp32_latency_ms:.1f} ms)"
    )
    _output.result(str(folder))
