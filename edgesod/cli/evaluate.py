"""``edgesod eval``: the scores of models, engines, ONNX files, weights or folders of maps against ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesod.cli import _options, _output
from edgesod.errors import UsageError

if TYPE_CHECKING:
    from edgesod.cli._subjects import Subject
    from edgesod.evaluation import EvaluationSet, SodScorer

NAME = "eval"

_Paths = list[Path] | None


def command(
    data: Annotated[
        list[Path],
        typer.Option(help="Folder with images/ and masks/, or a tar of one; may be given several times for parts of one set."),
    ],
    hold_out: Annotated[
        bool,
        typer.Option(
            "--hold-out", help="Score the hold-out alone, every 20th picture of a training set; --data as in training."
        ),
    ] = False,
    maps: Annotated[
        _Paths, typer.Option(help="A folder of saliency maps named like the images; may be given several times.")
    ] = None,
    engine: Annotated[_Paths, typer.Option(help="An engine folder; may be given several times.")] = None,
    model: _options.Model = None,
    fp32: _options.Fp32 = False,
    fp16: _options.Fp16 = False,
    bf16: _options.Bf16 = False,
    int8: _options.Int8 = False,
    weights: Annotated[
        _Paths, typer.Option(help="Your own weights, scored in FP32; needs torch; may be given several times.")
    ] = None,
    onnx: Annotated[_Paths, typer.Option(help="An FP32 ONNX; may be given several times.")] = None,
    recipe_file: Annotated[
        Path | None,
        typer.Option(
            "--recipe", help="With --onnx or --weights: a recipe of your own (TOML), which says how the input is made."
        ),
    ] = None,
    size: Annotated[int | None, typer.Option(min=32, help="With --weights: input height and width in pixels.")] = None,
    stretch: Annotated[
        bool,
        typer.Option(
            help="Min–max stretch each map first, as published evaluations do; --no-stretch judges what a stream shows."
        ),
    ] = True,
    dataset: Annotated[
        str | None,
        typer.Option(help="The set, such as SOD or DUTS-TE, to compare with published scores; its folder's name by default."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the PR and F curves (PNG, CSV).")] = None,
    sheet: Annotated[Path | None, typer.Option(help="PNG with image, ground truth and every model's map side by side.")] = None,
    sheet_rows: Annotated[int, typer.Option(min=1, help="Images on the sheet, evenly spread over the set.")] = 8,
    backend: _options.Backend = "auto",
    threads: _options.Threads = None,
    as_json: _options.Json = False,
) -> None:
    """Score saliency maps against ground truth.

    MAE; max-F as the published tables define it and as PySODMetrics does; mean, adaptive and weighted F; S- and E-measure. Several
    models share one table, one picture of curves and one sheet.
    """
    from edgesod.cli._subjects import collect_subjects
    from edgesod.evaluation import EvaluationSet, draw_curves, evenly_spread, name_of, write_curves
    from edgesod.evaluation import hold_out as split

    subjects = collect_subjects(
        maps=maps or [],
        engines=engine or [],
        onnx=onnx or [],
        weights=weights or [],
        model=model,
        precision=_options.precision_from(fp32=fp32, fp16=fp16, bf16=bf16, int8=int8),
        recipe_file=recipe_file,
        size=size,
        backend=backend,
        threads=threads,
    )
    if dataset is not None and hold_out:
        raise UsageError(
            f"published scores are of all of {dataset}, and --hold-out scores a part", hint="leave out --dataset or --hold-out"
        )
    if dataset is not None:
        dataset = _options.known_set(dataset).name
    pairs = EvaluationSet(*data) if hold_out or sheet is not None else None
    held = split(pairs.stems)[1] if pairs is not None and hold_out else None
    shown = evenly_spread(held or pairs.stems, sheet_rows) if pairs is not None and sheet is not None else []
    scorers: list[SodScorer] = []
    for subject in subjects:
        with _output.progress(f"eval {subject.label}") as update:
            scorers.append(subject.score(data, shown, stems=held, stretch=stretch, jobs=threads, on_progress=update))
    scores = [scorer.scores() for scorer in scorers]
    if as_json:
        by_label = {subject.label: one for subject, one in zip(subjects, scores, strict=True)}
        found = scores[0] if len(scores) == 1 else {"models": by_label}
        _output.result_json({"data": [str(place) for place in data], "hold_out": hold_out, **found})
    else:
        how = "stretched min–max as published" if stretch else "not stretched, so not comparable with published scores"
        title = f"{scores[0]['n']:.0f} images{' of the hold-out' if hold_out else ''}, maps {how}"
        is_published = stretch and not hold_out
        _print(title, subjects, scores, (dataset or name_of(data)) if is_published else "")
    # files last: one that cannot be written does not cost the scores
    if out is not None:
        curves = {subject.label: scorer.curves() for subject, scorer in zip(subjects, scorers, strict=True)}
        draw_curves(curves, out / "curves.png")
        write_curves(curves, out / "curves.csv")
    if sheet is not None and pairs is not None:
        _write_sheet(sheet, pairs, shown, subjects)


def _print(title: str, subjects: list[Subject], scores: list[dict[str, float]], dataset: str) -> None:
    if len(subjects) == 1:
        _print_one(title, subjects[0], scores[0], dataset)
    else:
        _print_several(title, subjects, scores, dataset)


def _print_one(title: str, subject: Subject, scores: dict[str, float], dataset: str) -> None:
    from edgesod.evaluation import compare_with_published

    published = compare_with_published(subject.model, dataset, scores)
    found = [(key, value) for key, value in scores.items() if key != "n"]
    if not published:
        _output.table(title, ("score", "here"), found)
        return
    rows = [
        (key, value, *((published[key].published, published[key].difference) if key in published else ("", "")))
        for key, value in found
    ]
    _output.table(title, ("score", "here", "published", "difference"), rows)


def _print_several(title: str, subjects: list[Subject], scores: list[dict[str, float]], dataset: str) -> None:
    """Print one row a model; the published scores and the differences to them only where there are any."""
    from edgesod.evaluation import compare_with_published

    published = [compare_with_published(subject.model, dataset, found) for subject, found in zip(subjects, scores, strict=True)]
    compared = [name for name in scores[0] if any(name in row for row in published)]
    columns = ["model", *(name for name in scores[0] if name != "n")]
    rows = [(subject.label, *list(found.values())[1:]) for subject, found in zip(subjects, scores, strict=True)]
    _output.table(title, columns, rows)
    if not compared:
        return
    columns = ["model", *(f"{name} {what}" for name in compared for what in ("published", "difference"))]
    cells = [
        [value for name in compared for value in ((row[name].published, row[name].difference) if name in row else ("–", "–"))]
        for row in published
    ]
    rows = [(subject.label, *row) for subject, row in zip(subjects, cells, strict=True)]
    _output.table("", columns, rows)


def _write_sheet(path: Path, pairs: EvaluationSet, stems: list[str], subjects: list[Subject]) -> None:
    from edgesod.processing.sheet import contact_sheet, write_sheet

    rows = [[*pairs.read(stem), *(subject.shown[stem] for subject in subjects)] for stem in stems]
    labels = ["image", "truth", *(subject.label for subject in subjects)]
    write_sheet(contact_sheet(rows, labels, row_labels=stems), path)
