"""``edgesod demo``: from nothing to a masked video in a few minutes, with photographs everybody may use."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from edgesod.cli import _output

NAME = "demo"


def command(
    out: Annotated[Path, typer.Option(help="Folder for the clip, the result, the sheet and the report.")] = Path("demo"),
    seconds: Annotated[float, typer.Option(min=1, max=60, help="Length of the clip.")] = 8.0,
) -> None:
    """Build the INT8 engine and run it on a short clip.

    The clip is made here, by moving a camera over four photographs.
    """
    from edgesod.bench import run_report
    from edgesod.cli._report import print_run_report
    from edgesod.cli._runtime import build_default_if_missing, open_runtime
    from edgesod.cli._session import open_sinks, run_session
    from edgesod.files import write_atomically
    from edgesod.processing.look import Look
    from edgesod.stream import open_source
    from edgesod.stream.tour import write_tour

    with ExitStack() as stack:
        build_default_if_missing()
        runtime = stack.enter_context(open_runtime(None, None, None))
        clip = out / "clip.mp4"
        _output.note(f"making {clip} from scikit-image's photographs")
        write_tour(clip, seconds=seconds)
        video, sheet = out / "out.mp4", out / "contact_sheet.png"
        source = stack.enter_context(open_source(clip))
        runtime.warm_up()
        pipeline = run_session(runtime, [source], open_sinks(stack, [source], outs=[str(video)], sheet=sheet), Look())
        report = run_report(runtime, pipeline, input=str(clip), output=str(video), effect="overlay")
    write_atomically(out / "report.json", (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())
    print_run_report(report, as_json=False)
    if pipeline.interrupted:
        raise KeyboardInterrupt
    _output.result(f"look at {video} and {sheet}; the numbers are in {out / 'report.json'}")
    _output.result("your own clip: edgesod run --video clip.mp4 --out out.mp4")
