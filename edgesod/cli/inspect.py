"""``edgesod inspect``: what an engine folder holds and whether it fits this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesod.cli import _options, _output
from edgesod.errors import UsageError

if TYPE_CHECKING:
    from edgesod.manifest import Manifest, TensorRtBuild

NAME = "inspect"


def command(
    engine: Annotated[Path | None, typer.Option("--engine", help="An engine folder that `edgesod build` made.")] = None,
    model: _options.Model = None,
    fp32: _options.Fp32 = False,
    fp16: _options.Fp16 = False,
    bf16: _options.Bf16 = False,
    int8: _options.Int8 = False,
    layers: Annotated[bool, typer.Option("--layers", help="TensorRT: time each layer instead, the slowest first.")] = False,
    as_json: _options.Json = False,
) -> None:
    """Show an engine, and check that it fits this machine.

    Its files are checked too. By default it is the built U²-NetP in INT8.
    """
    from edgesod import assets
    from edgesod.cli._source import DEFAULT_MODEL
    from edgesod.manifest import check_manifest
    from edgesod.recipe import recipe_for

    precision = _options.precision_from(fp32=fp32, fp16=fp16, bf16=bf16, int8=int8)
    if engine is None:
        engine = assets.engines_root() / recipe_for(model or DEFAULT_MODEL, precision or "int8").name
    elif model or precision:
        raise UsageError("--engine names model and precision already", hint=f"--engine {engine} alone")
    manifest = check_manifest(engine)
    if manifest.backend == "tensorrt":
        from edgesod.runtime.tensorrt_engine import check_here

        check_here(engine, manifest)
    if layers:
        _layers(engine, manifest, as_json)
        return
    if as_json:
        _output.result_json(manifest.model_dump(mode="json"))
        return
    gate = manifest.gate
    rows: list[tuple[str, object]] = [
        ("recipe", manifest.recipe.name),
        ("backend", manifest.backend),
        ("built", f"{manifest.created} on {manifest.device.name} ({manifest.device.architecture})"),
        *(
            ()
            if manifest.tensorrt is None
            else (("GPU", manifest.tensorrt.gpu.text), ("layers by type", _counts(manifest.tensorrt)))
        ),
        ("inputs", ", ".join(f"{t.name} {t.dtype}{list(t.shape)}" for t in manifest.inputs)),
        ("outputs", ", ".join(f"{t.name} {t.dtype}{list(t.shape)}" for t in manifest.outputs)),
        ("gate", f"{gate.n} images ({gate.images}): maps differ by {gate.map_mae:.4f}, masks agree to IoU {gate.mask_iou:.3f}"),
        ("speed", f"{gate.latency_ms:.1f} ms a frame, {gate.speedup:.2f} × ONNX Runtime FP32"),
        *((f"sha256 {name}", value) for name, value in sorted(manifest.sha256.items())),
        *((f"version {name}", value) for name, value in sorted(manifest.versions.items())),
    ]
    _output.table(f"{engine}: fits its files and this machine", ("", ""), rows)


def _layers(engine: Path, manifest: Manifest, as_json: bool) -> None:
    if manifest.backend != "tensorrt":
        raise UsageError(
            f"{engine} runs on {manifest.backend}, which does not time its layers",
            hint="build it with --backend tensorrt, or leave out --layers",
        )
    from edgesod.runtime.tensorrt_session import TensorRtSession

    session = TensorRtSession(engine / manifest.engine_file)
    with session:
        times = sorted(session.layer_times(), key=lambda layer: -layer.ms)
    if as_json:
        _output.result_json({"layers": [{"name": t.name, "ms": t.ms, "share": t.share} for t in times]})
        return
    rows = [(t.name, f"{t.ms:.4f}", f"{t.share:.1%}") for t in times]
    _output.table(f"{engine}: {sum(t.ms for t in times):.3f} ms in {len(times)} layers", ("layer", "ms", "share"), rows)


def _counts(build: TensorRtBuild) -> str:
    return ", ".join(f"{n} {name}" for name, n in build.layers.items()) or "not recorded"
