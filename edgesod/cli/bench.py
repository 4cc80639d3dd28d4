"""``edgesod bench``: latency and throughput of an engine, by trtexec's rules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesod.cli import _options, _output

if TYPE_CHECKING:
    from edgesod.bench import BenchReport
    from edgesod.runtime import Runtime

NAME = "bench"


def command(
    engine: _options.Engine = None,
    model: _options.Model = None,
    fp32: _options.Fp32 = False,
    fp16: _options.Fp16 = False,
    bf16: _options.Bf16 = False,
    int8: _options.Int8 = False,
    image: Annotated[Path | None, typer.Option(help="The frame to use; a photograph at 1280×720 by default.")] = None,
    duration: Annotated[float, typer.Option(min=0, help="Least seconds to measure.")] = 3.0,
    iterations: Annotated[int, typer.Option(min=1, help="Least iterations to measure.")] = 10,
    warm_up: Annotated[float, typer.Option(min=0, help="Milliseconds of warm-up.")] = 200.0,
    backend: _options.Backend = "auto",
    threads: _options.Threads = None,
    submit: Annotated[
        Path | None, typer.Option(help="Also write a file to hand in: board, clocks, engine, latency, gate; nothing personal.")
    ] = None,
    as_json: _options.Json = False,
) -> None:
    """Time an engine: network alone and end to end, percentiles, and the papers' figures beside them."""
    from edgesod.bench import bench
    from edgesod.cli._runtime import open_runtime
    from edgesod.processing.pictures import photograph, read_picture
    from edgesod.processing.resize import resize_image
    from edgesod.timing import PAPER_FIGURES

    precision = _options.precision_from(fp32=fp32, fp16=fp16, bf16=bf16, int8=int8)
    frame = read_picture(image) if image else resize_image(photograph(), (720, 1280), "linear")
    with open_runtime(engine, model, precision, backend, threads) as runtime:
        report = bench(runtime, frame, warm_up_ms=warm_up, iterations=iterations, duration_s=duration)
        value = report.as_dict(runtime)
        if submit is not None:
            _submit(submit, runtime, report, engine)
    if as_json:
        _output.result_json(value)
        return
    height, width = report.frame_hw
    title = f"{value['model']} {value['size']} {value['precision']}, {value['backend']}, frame {width}×{height}, ms"
    rows = [(name, s.mean, s.p50, s.p90, s.p95, s.p99, f"{s.cv:.1%}") for name, s in report.stages.items()]
    _output.table(title, ("stage", "mean", "p50", "p90", "p95", "p99", "cv"), rows)
    network_fps = 1e3 / report.latency.p50
    _output.result(f"throughput {report.throughput_fps:.1f} fps end to end, {network_fps:.1f} fps network alone")
    for figure in PAPER_FIGURES:
        _output.result(
            f"network alone is {network_fps / figure.fps:.2f} × the paper's {figure.fps:g} fps of {figure.model} "
            f"({figure.size}×{figure.size}, FP32, {figure.device})"
        )
    for warning in report.warnings:
        _output.note(f"warning: {warning}")


def _submit(path: Path, runtime: Runtime, report: BenchReport, engine: Path | None) -> None:
    from edgesod import assets
    from edgesod.bench.board import read_board
    from edgesod.bench.submission import WHERE_TO, write_submission
    from edgesod.manifest import read_manifest

    is_engine = engine is not None or runtime.precision != "fp32" or runtime.backend == "tensorrt"  # else a shipped ONNX
    folder = engine or assets.engines_root() / runtime.recipe.name
    board = read_board()
    write_submission(path, runtime, report, board, read_manifest(folder) if is_engine else None)
    for warning in board.warnings:
        _output.note(f"warning: {warning}")
    _output.note(f"wrote {path}: {WHERE_TO}")
