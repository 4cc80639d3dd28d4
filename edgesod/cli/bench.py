"""``edgesod bench``: latency and throughput of an engine, by trtexec's rules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgesod.cli import _options, _output

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgesod.bench import BenchReport
    from edgesod.recipe import Precision
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
    soak: Annotated[
        float | None,
        typer.Option(min=0, metavar="MIN", help="Then run for so many minutes more and watch speed, memory and temperature."),
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Also try other numbers of threads, and several engines at once.")
    ] = False,
    roofline: Annotated[bool, typer.Option(help="Measure this machine's limit, and say how near the engine comes.")] = True,
    backend: _options.Backend = "auto",
    threads: _options.Threads = None,
    html: Annotated[Path | None, typer.Option(help="Also write an HTML page with plots; it opens offline.")] = None,
    submit: Annotated[
        Path | None, typer.Option(help="Also write a file to hand in: board, clocks, engine, latency, gate; nothing personal.")
    ] = None,
    as_json: _options.Json = False,
) -> None:
    """Time an engine: the network alone, and end to end.

    Prints mean and percentiles of each stage, and the papers' figures beside them. By default it times U²-NetP in INT8.
    """
    from edgesod.bench import bench
    from edgesod.bench.measure import bench_frame
    from edgesod.bench.page import write_page
    from edgesod.cli._runtime import open_runtime

    precision = _options.precision_from(fp32=fp32, fp16=fp16, bf16=bf16, int8=int8)
    with open_runtime(engine, model, precision, backend, threads) as runtime:
        frame = bench_frame(image, runtime.recipe.frame_hw)
        report = bench(runtime, frame, warm_up_ms=warm_up, iterations=iterations, duration_s=duration)
        value = report.as_dict(runtime)
        value["roofline"] = _roofline(runtime, report, engine, threads) if roofline else None
        if soak is not None:
            value["soak"] = _soak(runtime, frame, soak)
    interrupted = soak is not None and value["soak"]["interrupted"]
    if sweep and not interrupted:
        value["sweep"] = _sweep(engine, value, frame, duration)
        interrupted = value["sweep"]["interrupted"]
    if as_json:
        _output.result_json(value)
    else:
        _print(value, report)
    # files last: one that cannot be written does not cost the measurement
    if submit is not None:
        _submit(submit, runtime, report, engine)
    if html is not None:
        write_page(html, value, report)
        _output.note(f"wrote {html}")
    if interrupted:
        raise KeyboardInterrupt


def _print(value: dict[str, Any], report: BenchReport) -> None:
    from edgesod.bench.svg import counted
    from edgesod.timing import PAPER_FIGURES

    height, width = report.frame_hw
    (h, w), threads = value["size"], f" on {counted(value['threads'], 'thread')}" if value["threads"] else ""
    title = f"{value['model']} {h}×{w} {value['precision']}, {value['backend']}{threads}, frame {width}×{height}, ms"
    rows = [(name, s.mean, s.p50, s.p90, s.p95, s.p99, f"{s.cv:.1%}") for name, s in report.stages.items()]
    _output.table(title, ("stage", "mean", "p50", "p90", "p95", "p99", "cv"), rows)
    network_fps = 1e3 / report.latency.p50
    _output.result(f"throughput {report.throughput_fps:.1f} fps end to end, {network_fps:.1f} fps network alone")
    for figure in PAPER_FIGURES:
        _output.result(
            f"network alone is {network_fps / figure.fps:.2f} × the paper's {figure.fps:g} fps of {figure.model} "
            f"({figure.size}×{figure.size}, FP32, {figure.device})"
        )
    for rail, joules in value["sensors"]["energy_j_per_frame"].items():
        _output.result(f"{rail}: {value['sensors']['power_w'][rail]:.2f} W, {joules * 1e3:.1f} mJ a frame")
    for name, seen in value["sensors"]["temperatures_c"].items():
        _output.result(f"{name}: {seen['last']:.1f} °C, at most {seen['highest']:.1f} °C")
    if found := value["roofline"]:
        _print_roofline(found)
    if "sweep" in value:
        rows = [
            (f"{p['streams']} × {p['threads']}", p["fps"], *(p["latency_ms"][name] for name in ("p50", "p90", "p99")))
            for p in value["sweep"]["points"]
        ]
        _output.table(value["sweep"]["note"], ("streams × threads", "fps", "p50 ms", "p90 ms", "p99 ms"), rows)
    if "soak" in value:
        found = value["soak"]
        _output.result(
            f"soak of {found['minutes']:.1f} min, {found['frames']} frames: speed {found['fps_drift']:+.2%}, "
            f"resident memory {found['rss_drift']:+.2%}"
        )
    for warning in value["warnings"]:
        _output.note(f"warning: {warning}")


def _print_roofline(found: dict[str, Any]) -> None:
    if "unknown" in found:
        _output.result(f"roofline: {found['unknown']}")
        return
    name, peaks = found["precision"].upper(), found["peaks"]
    _output.result(
        f"roofline: {found['share']:.0%} of the {name} limit, {found['bound_by']}-bound: {found['macs'] / 1e9:.2f} GMACs and "
        f"{found['bytes'] / 1e6:.0f} MB take {max(found['compute_ms'], found['memory_ms']):.2f} ms at least at "
        f"{peaks[found['precision'] + '_gops']:.0f} Gop/s and {peaks['memory_gb_s']:.1f} GB/s ({found['peaks_from']})"
    )


def _roofline(runtime: Runtime, report: BenchReport, engine: Path | None, threads: int | None) -> dict[str, Any]:
    """Return how near the engine comes to the machine's limit, or under ``unknown`` why that cannot be said."""
    from edgesod import zoo
    from edgesod.bench.peaks import measure_peaks
    from edgesod.bench.roofline import PEAKS, standing, work_of
    from edgesod.bench.svg import counted
    from edgesod.errors import InputError
    from edgesod.manifest import read_manifest

    manifest = _manifest(runtime, engine)
    precision: Precision = runtime.precision
    onnx = zoo.shipped(runtime.recipe.model).onnx if engine is None else engine / read_manifest(engine).onnx_file
    try:
        work = work_of(onnx)
        if manifest is not None and manifest.tensorrt is not None:
            gpu = manifest.tensorrt.gpu.name
            if gpu not in PEAKS:
                return {"unknown": f"no figures are kept for {gpu}"}
            peaks, source = PEAKS[gpu], f"datasheet of {gpu}"
        else:
            precision = "fp32" if precision == "fp16" else precision  # which CPUs compute in FP32
            measured = measure_peaks(threads, ("fp32", "int8", precision))
            peaks, how = measured.peaks, measured.how
            source = (
                f"measured here with {counted(measured.threads, 'thread')}: {how.get(precision, how['fp32'])}; {how['memory']}"
            )
    except InputError as error:
        return {"unknown": str(error)}
    return standing(work, precision, peaks, report.latency.p50) | {"peaks_from": source}


def _soak(runtime: Runtime, frame: NDArray[np.uint8], minutes: float) -> dict[str, Any]:
    from edgesod.bench.soak import soak

    with _output.progress("soak") as update:
        report = soak(runtime, frame, minutes, on_progress=update)
    for warning in report.warnings:
        _output.note(f"warning: {warning}")
    return report.as_dict()


def _sweep(engine: Path | None, value: dict[str, Any], frame: NDArray[np.uint8], seconds: float) -> dict[str, Any]:
    from edgesod.bench.sweep import BATCH_NOTE, SweepPoint, settings, sweep
    from edgesod.runtime import Runtime
    from edgesod.threads import resolve_threads

    def open_with(threads: int) -> Runtime:
        if engine is not None:
            return Runtime(engine, threads=threads)
        return Runtime(value["model"], precision=value["precision"], backend=value["backend"], threads=threads)

    cores = resolve_threads(None)
    # a GPU has no threads to share out: engines side by side are all there is to try
    todo = [(streams, 1) for streams in (1, 2, 4)] if value["backend"] == "tensorrt" else settings(cores)
    points: list[SweepPoint] = []
    interrupted = False
    with _output.progress("sweep") as update:

        def keep(point: SweepPoint) -> None:
            points.append(point)
            update(len(points), len(todo), f"{point.fps:.1f} fps")

        try:
            sweep(open_with, frame, todo, seconds=seconds, on_point=keep)
        except KeyboardInterrupt:
            interrupted = True
    return {
        "cores": cores,
        "note": BATCH_NOTE,
        "interrupted": interrupted,
        "points": [point.as_dict() for point in points],
    }


def _submit(path: Path, runtime: Runtime, report: BenchReport, engine: Path | None) -> None:
    from edgesod.bench.board import read_board
    from edgesod.bench.submission import WHERE_TO, write_submission

    board = read_board()
    write_submission(path, runtime, report, board, _manifest(runtime, engine))
    for warning in board.warnings:
        _output.note(f"warning: {warning}")
    _output.note(f"wrote {path}: {WHERE_TO}")


def _manifest(runtime: Runtime, engine: Path | None) -> Any:
    """Return the manifest of what runs, ``None`` for a shipped ONNX that runs as it is."""
    from edgesod import assets
    from edgesod.manifest import read_manifest

    is_engine = engine is not None or runtime.precision != "fp32" or runtime.backend == "tensorrt"
    return read_manifest(engine or assets.engines_root() / runtime.recipe.name) if is_engine else None
