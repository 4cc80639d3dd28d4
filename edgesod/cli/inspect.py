"""``edgesod inspect``: what an engine folder holds and whether it fits this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgesod.cli import _options, _output

NAME = "inspect"


def command(
    engine: Annotated[Path | None, typer.Option("--engine", help="An engine folder.")] = None,
    model: _options.Model = None,
    fp32: _options.Fp32 = False,
    fp16: _options.Fp16 = False,
    bf16: _options.Bf16 = False,
    int8: _options.Int8 = False,
    as_json: _options.Json = False,
) -> None:
    """Show an engine's manifest after checking it against the files and this machine."""
    from edgesod import assets
    from edgesod.cli._source import DEFAULT_MODEL
    from edgesod.manifest import check_manifest
    from edgesod.recipe import recipe_for

    if engine is None:
        precision = _options.precision_from(fp32=fp32, fp16=fp16, bf16=bf16, int8=int8) or "int8"
        engine = assets.engines_root() / recipe_for(model or DEFAULT_MODEL, precision).name
    manifest = check_manifest(engine)
    if as_json:
        _output.result_json(manifest.model_dump(mode="json"))
        return
    gate = manifest.gate
    rows: list[tuple[str, object]] = [
        ("recipe", manifest.recipe.name),
        ("backend", manifest.backend),
        ("built", f"{manifest.created} on {manifest.device.name} ({manifest.device.architecture})"),
        ("inputs", ", ".join(f"{t.name} {t.dtype}{list(t.shape)}" for t in manifest.inputs)),
        ("outputs", ", ".join(f"{t.name} {t.dtype}{list(t.shape)}" for t in manifest.outputs)),
        ("gate", f"{gate.n} images ({gate.images}): maps differ by {gate.map_mae:.4f}, masks agree to IoU {gate.mask_iou:.3f}"),
        ("speed", f"{gate.latency_ms:.1f} ms a frame, {gate.speedup:.2f} × ONNX Runtime FP32"),
        *((f"sha256 {name}", value) for name, value in sorted(manifest.sha256.items())),
        *((f"version {name}", value) for name, value in sorted(manifest.versions.items())),
    ]
    _output.table(f"{engine}: fits its files and this machine", ("", ""), rows)
