"""``edgesod run``: cameras, videos, pictures in; pictures with the subject found, and a report, out."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesod.cli import _options, _output
from edgesod.cli._config import read_config
from edgesod.errors import UsageError

if TYPE_CHECKING:
    from edgesod.processing.look import Look
    from edgesod.web import PageSink

NAME = "run"
_TOKEN = "EDGESOD_TOKEN"


def command(
    source: Annotated[
        list[str] | None,
        typer.Argument(metavar="[INPUT]...", help="Camera number, video, picture, folder, img_%04d.png, rtsp://…, csi://0, -"),
    ] = None,
    camera: Annotated[int | None, typer.Option(min=0, help="A camera by number.")] = None,
    video: Annotated[str | None, typer.Option(help="A video file.")] = None,
    image: Annotated[str | None, typer.Option(help="A picture or a folder of pictures.")] = None,
    source_options: Annotated[
        str,
        typer.Option(
            metavar="NAME=VALUE,…",
            help="How inputs are read: width, height (pixels), rate (fps), rotate, flip, loop, start, end (s), …",
        ),
    ] = "",
    out: Annotated[
        list[str] | None,
        typer.Option(
            help="A video, a picture, a folder, - (raw), out.jsonl (boxes), ring://NAME (masks), rtsp://HOST/NAME, display://0 or null; "
            "may be given several times."
        ),
    ] = None,
    effect: Annotated[str, typer.Option(help="overlay, mask, cutout, blur, green, replace, outline or box.")] = "overlay",
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Saliency, between 0 and 1, from which a pixel belongs to the mask; by default the recipe's, usually 0.5."
        ),
    ] = None,
    background: Annotated[
        Path | None, typer.Option(help="Picture or video behind the subject, for the effect replace.")
    ] = None,
    steady: Annotated[
        str,
        typer.Option(
            metavar="NAME[=VALUE],…",
            help="Masks that flicker less: one of smooth, motion, flow; any of hysteresis, area, holes, refine, feather, every, "
            "similar.",
        ),
    ] = "",
    web: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST]:PORT",
            help="Show the run on a web page; :8080 is for this machine only, 0.0.0.0:8080 for others too.",
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar=_TOKEN,
            help="Token that the page asks for. Without it, one is made and printed where other machines can reach the page.",
        ),
    ] = None,
    contact_sheet: Annotated[
        Path | None, typer.Option(help="Also write a sheet of eight frames across the run (.png).")
    ] = None,
    engine: _options.Engine = None,
    model: _options.Model = None,
    fp32: _options.Fp32 = False,
    fp16: _options.Fp16 = False,
    bf16: _options.Bf16 = False,
    int8: _options.Int8 = False,
    backend: _options.Backend = "auto",
    threads: _options.Threads = None,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop after this many frames.")] = None,
    stop_after: Annotated[float | None, typer.Option(min=0.1, metavar="SECONDS", help="Stop after so many seconds.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            callback=read_config, is_eager=True, help="A TOML file with these options; the command line overrides it."
        ),
    ] = None,
    log_format: Annotated[str, typer.Option(metavar="text|json", help="How the log on stderr is written.")] = "text",
    as_json: _options.Json = False,
) -> None:
    """Find the salient object in cameras, videos and pictures.

    Writes every frame with --effect applied to --out, and reports speed beside the papers' figures. Without --model and --engine it runs
    U²-NetP in INT8, and builds it first where needed. Ctrl-C and SIGTERM end the run with a report and files that play.
    """
    from edgesod.bench import run_report
    from edgesod.cli._overwriting import refuse_overwriting
    from edgesod.cli._report import print_run_report
    from edgesod.cli._runtime import build_default_if_missing, open_runtime
    from edgesod.cli._session import open_sinks, out_names, run_session
    from edgesod.cli._signals import close_unless_stuck, interruptibly, sigterm_as_ctrl_c
    from edgesod.processing.steady import parse_steady
    from edgesod.stream import LiveStatistics, open_source
    from edgesod.stream.sources.options import parse_options
    from edgesod.stream.uri import redacted

    _speak(log_format, out or [])
    inputs = [str(one) for one in (camera, video, image) if one is not None]
    inputs += source or []
    if not inputs:
        raise UsageError("there is no input", hint="edgesod run --video clip.mp4 --out out.mp4")
    if web is None and token not in (None, os.environ.get(_TOKEN)):
        raise UsageError("--token is for the page, and there is none", hint="--web :8080 --token …")
    outs = out or []
    written = [name for one in outs for name in out_names(one, len(inputs))]
    refuse_overwriting(
        [*inputs, *([str(background)] if background else [])], [*written, *([str(contact_sheet)] if contact_sheet else [])]
    )
    precision = _options.precision_from(fp32=fp32, fp16=fp16, bf16=bf16, int8=int8)
    options = parse_options(source_options)
    settings = parse_steady(steady) if steady else None
    if background is not None and effect != "replace" and web is None:  # the page can switch to it
        raise UsageError(f"--background is for the effect replace, and the effect is {effect}", hint="--effect replace")
    look = _look(effect, threshold, background)
    statistics = LiveStatistics()
    with sigterm_as_ctrl_c(), ExitStack() as stack:
        # inputs and outputs first: a wrong name should not cost a build
        with ExitStack() as opening:
            sources = [opening.enter_context(interruptibly(partial(open_source, uri, options))) for uri in inputs]
            sinks = open_sinks(opening, sources, outs=outs, sheet=contact_sheet)
            page: PageSink | None = None
            if web is not None:
                from edgesod.web import open_page

                page = open_page(web, statistics=statistics, look=look, token=token)
                sinks.append(opening.enter_context(page))
                _output.note(f"the page is at {page.url}")
            if engine is None and model is None and precision is None:
                build_default_if_missing(backend, threads)
            runtime = interruptibly(lambda: open_runtime(engine, model, precision, backend, threads))
            stack.callback(close_unless_stuck, runtime)
            if page is not None:
                page.show_engine(runtime)
            interruptibly(runtime.warm_up)
            opening.pop_all()  # from here on the pipeline closes sources and sinks
        pipeline = run_session(
            runtime,
            sources,
            sinks,
            look,
            steady=settings,
            max_frames=max_frames,
            stop_after_s=stop_after,
            statistics=statistics,
        )
        report = run_report(
            runtime,
            pipeline,
            input=", ".join(one.name for one in sources),
            output=", ".join(map(redacted, outs)) or None,
            **look.as_dict(),
        )
    print_run_report(report, as_json=as_json)
    kept = [*_files(written), *([str(contact_sheet)] if contact_sheet else [])]
    if kept and pipeline.frames:
        _output.note(f"wrote {', '.join(kept)}")
    elif not sinks:
        _output.note("nothing was written: --out FILE keeps the pictures")
    if pipeline.interrupted:
        raise KeyboardInterrupt


def _speak(log_format: str, outs: list[str]) -> None:
    if log_format not in ("text", "json"):
        raise UsageError(f"there is no log format {log_format!r}", hint="--log-format text or json")
    if log_format == "json":
        _output.log_as_json()
    if log_format == "json" or not os.environ.get("EDGESOD_DEBUG"):
        import cv2

        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # its lines are no JSON, and say less than our errors
    if "-" in outs:
        _output.leave_stdout_alone()
    _output.pass_on_the_log()


def _files(outs: list[str]) -> list[str]:
    """Return what of the outputs is on a disk."""
    from edgesod.stream.uri import scheme_of

    return [out for out in outs if scheme_of(out) in ("", "file") and out not in ("-", "null")]


def _look(effect: str, threshold: float | None, background: Path | None) -> Look:
    from edgesod.processing.look import Look
    from edgesod.stream.background import open_background

    return Look(effect, threshold, open_background(background) if background is not None else None)
