"""``edgesod run``: a camera, a video, pictures in; pictures with the subject found, and a report, out."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from edgesod.cli import _options, _output
from edgesod.errors import UsageError

NAME = "run"


def command(
    source: Annotated[
        str | None, typer.Argument(metavar="[INPUT]", help="Camera number, video, picture, folder, img_%04d.png, rtsp://…")
    ] = None,
    camera: Annotated[int | None, typer.Option(min=0, help="A camera by number.")] = None,
    video: Annotated[str | None, typer.Option(help="A video file.")] = None,
    image: Annotated[str | None, typer.Option(help="A picture or a folder of pictures.")] = None,
    out: Annotated[Path | None, typer.Option(help="A video (.mp4, .mkv), a picture, or a folder for pictures.")] = None,
    effect: Annotated[str, typer.Option(help="overlay, mask, cutout, blur or green.")] = "overlay",
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
    as_json: _options.Json = False,
) -> None:
    """Find the salient object in every frame, write the effect, and report speed against the papers' figures.

    Without a model or an engine it runs U²-NetP in INT8, built first if need be. Ctrl-C ends with the statistics so far and a
    playable file.
    """
    from edgesod.bench import run_report
    from edgesod.cli._report import print_run_report
    from edgesod.cli._runtime import open_runtime
    from edgesod.cli._session import open_sinks, run_session
    from edgesod.processing.effects import EFFECTS
    from edgesod.stream import open_source

    inputs = [str(i) for i in (source, camera, video, image) if i is not None]
    if len(inputs) != 1:
        raise UsageError(f"one input at a time, {len(inputs)} were given", hint="edgesod run --video clip.mp4 --out out.mp4")
    if effect not in EFFECTS:
        raise UsageError(f"there is no effect {effect!r}", hint=f"effects: {', '.join(EFFECTS)}")
    precision = _options.precision_from(fp32=fp32, fp16=fp16, bf16=bf16, int8=int8)
    _refuse_overwriting(inputs[0], out)
    # input and outputs first: a wrong name should not cost a build
    with ExitStack() as stack:
        opened = stack.enter_context(open_source(inputs[0]))
        sinks = open_sinks(stack, opened, out=out, sheet=contact_sheet)
        runtime = stack.enter_context(open_runtime(engine, model, precision, backend, threads, build_default=True))
        pipeline = run_session(runtime, opened, sinks, effect=effect, max_frames=max_frames)
        report = run_report(runtime, pipeline, input=opened.name, output=str(out) if out else None, effect=effect)
    print_run_report(report, as_json=as_json)
    if out is None:
        _output.note("nothing was written: --out FILE keeps the pictures")
    if pipeline.interrupted:
        raise KeyboardInterrupt


def _refuse_overwriting(source: str, out: Path | None) -> None:
    """Raise where the output would replace the input: the file itself, or the pictures of its folder."""
    path = Path(source)
    if out is None or not path.exists() or not out.exists():
        return
    if out.samefile(path) or (out.is_dir() and path.is_file() and out.samefile(path.parent)):
        raise UsageError(f"--out {out} would overwrite the input {source}", hint="choose another --out")
