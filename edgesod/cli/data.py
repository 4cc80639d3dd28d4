"""``edgesod data``: look a training set over, and make one file of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgesod.cli import _options, _output
from edgesod.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    from trainer.data.check import CheckReport

NAME = "data"

app = typer.Typer(
    name=NAME, help="Look a training set over, or pack it into one file.", no_args_is_help=True, rich_markup_mode=None
)

_Places = Annotated[list[Path], typer.Argument(metavar="DIR_OR_TAR", help="Folder of images and masks, or a tar of one.")]


@app.command("check")
def check(
    places: _Places,
    dataset: Annotated[
        str | None, typer.Option("--set", help="Which set it is, such as ECSSD; by default its folders' names tell.")
    ] = None,
    threads: _options.Threads = None,
    as_json: _options.Json = False,
) -> None:
    """Look for what is wrong with a training set.

    Counts pairs, and finds orphans, unreadable files, size mismatches, blank and non-binary masks, and duplicates. Ends with 1 where the
    set should not be trained on as it is.
    """
    from trainer.data.check import check as look_over

    meant = None if dataset is None else _options.known_set(dataset)
    with _output.progress("check") as update:
        report = look_over(*places, dataset=meant, threads=threads, on_progress=update)
    if as_json:
        _output.result_json(_as_json(report))
    else:
        _print_report(report)
    if not report.is_fit:
        miscounted = [count.name for count in report.counts if not count.is_right]
        wrong = [f"{count.name} has {count.pairs} pairs" for count in report.counts if count.name in miscounted]
        wrong += [f"{len(found.files)} {found.name}" for found in report.findings if found.verdict == "wrong"]
        raise CheckFailed(
            f"not to be trained on as it is: {', '.join(wrong)}",
            hint=f"{_where_from(miscounted)}remove or repair what is wrong; --json lists every file",
        )


@app.command("pack")
def pack(
    places: _Places,
    out: Annotated[Path, typer.Option(help="The tar to write.")],
    max_mb: Annotated[
        float, typer.Option("--max-mb", min=0.02, help="Largest size of the tar in megabytes (1 MB is 1,000,000 bytes).")
    ],
    threads: _options.Threads = None,
    as_json: _options.Json = False,
) -> None:
    """Pack one or several sets into one tar of a given size.

    Files that fit are copied as they are. Otherwise pictures are re-encoded, at the size and JPEG quality with the highest PSNR.
    Training and evaluation read the tar in place.
    """
    from trainer.data.pack import pack as write

    if max_mb == float("inf"):
        raise UsageError("--max-mb is a number of megabytes", hint="--max-mb 100")
    with _output.progress("pack") as update:
        done = write(*places, out=out, max_bytes=int(max_mb * 1e6), threads=threads, on_progress=update)
    if as_json:
        _output.result_json({"path": str(out), **asdict(done)})
        return
    how = "files copied as they were"
    if done.quality is not None:
        how = (
            f"longest side at most {done.quality.side} pixels, JPEG quality {done.quality.jpeg}, "
            f"{done.quality.psnr:.1f} dB left at 320 pixels"
        )
    _output.result(f"{out}: {done.pairs} pairs, {done.num_bytes / 1e6:.1f} MB, {how}")


def _where_from(names: list[str]) -> str:
    from edgesod.evaluation.datasets import find_dataset

    known = (find_dataset(name) for name in names)
    return "".join(f"get {found.name} again from {found.homepage}; " for found in known if found)


def _print_report(report: CheckReport) -> None:
    from edgesod.evaluation.datasets import find_dataset

    rows: list[tuple[object, ...]] = []
    for count in report.counts:
        expected = " or ".join(f"{n:,}" for n in count.expected)
        verdict = ("ok" if count.is_right else "wrong") if expected else "–"
        known = find_dataset(count.name)
        words = [f"its authors have {expected}" if expected else "", known.note if known else ""]
        rows.append((f"pairs of {count.name}", count.pairs, verdict, "; ".join(filter(None, words))))
    for found in report.findings:
        examples = "; ".join(found.files[:2]) + ("; …" if len(found.files) > 2 else "")
        rows.append((found.name, len(found.files), found.verdict, f"{found.about}: {examples}" if found.files else ""))
    _output.table(
        f"{report.pairs:,} pairs; longest side {report.smallest} to {report.largest} pixels, {report.median} in the middle; "
        f"{report.soft_masks:,} masks with soft edges, {report.soft_share:.2%} of all their pixels",
        ("", "found", "verdict", ""),
        rows,
    )


def _as_json(report: CheckReport) -> dict[str, Any]:
    return {
        "is_fit": report.is_fit,
        "pairs": report.pairs,
        "counts": [{**asdict(count), "is_right": count.is_right} for count in report.counts],
        "findings": [{**asdict(found), "found": len(found.files), "verdict": found.verdict} for found in report.findings],
        "soft_masks": report.soft_masks,
        "soft_share": report.soft_share,
        "longest_side": {"smallest": report.smallest, "median": report.median, "largest": report.largest},
    }
