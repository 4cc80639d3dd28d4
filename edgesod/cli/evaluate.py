"""``edgesod eval``: the scores of a model, an engine, an ONNX or a folder of maps against ground truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesod.cli import _options, _output
from edgesod.errors import UsageError

if TYPE_CHECKING:
    from edgesod.evaluation import SodScorer
    from edgesod.recipe import Precision
    from edgesod.runtime import Runtime

NAME = "eval"


def command(
    data: Annotated[Path, typer.Option(help="Folder with images/ and masks/, or a tar of one.")],
    maps: Annotated[Path | None, typer.Option(help="Score a folder of saliency maps.")] = None,
    engine: _options.Engine = None,
    model: _options.Model = None,
    fp32: _options.Fp32 = False,
    fp16: _options.Fp16 = False,
    bf16: _options.Bf16 = False,
    int8: _options.Int8 = False,
    weights: Annotated[Path | None, typer.Option(help="Your own weights of --model; needs torch.")] = None,
    onnx: Annotated[Path | None, typer.Option(help="An FP32 ONNX.")] = None,
    stretch: Annotated[
        bool,
        typer.Option(
            help="Min–max stretch each map first, as published evaluations do; --no-stretch judges what a stream shows."
        ),
    ] = True,
    dataset: Annotated[
        str | None, typer.Option(help="Name of the set, to compare with published rows; the folder's by default.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the PR and F curves (PNG, CSV).")] = None,
    backend: _options.Backend = "auto",
    threads: _options.Threads = None,
    as_json: _options.Json = False,
) -> None:
    """Score maps: MAE; max-F as the published tables define it and as PySODMetrics does; mean, adaptive and weighted F, S, E."""
    from edgesod.evaluation import accumulate_folder, compare_with_published, draw_curves, write_curves

    precision = _options.precision_from(fp32=fp32, fp16=fp16, bf16=bf16, int8=int8)
    if sum(x is not None for x in (maps, engine, onnx)) + (model is not None and onnx is None) != 1:
        raise UsageError(
            "eval scores one thing: --maps, --engine, --onnx, or --model (with --weights for your own)",
            hint="edgesod eval --data SOD --model u2netp --fp32",
        )
    with _output.progress("eval") as update:
        if maps is not None:
            scorer = accumulate_folder(maps, data, stretch=stretch, on_progress=update)
        else:
            scorer = _score_runtime(data, stretch, update, (engine, model, precision, weights, onnx, backend, threads))
    scores = scorer.scores()
    if out is not None:
        name = model or (engine or onnx or maps or data).name
        draw_curves({name: scorer.curves()}, out / "curves.png")
        write_curves({name: scorer.curves()}, out / "curves.csv")
    if as_json:
        _output.result_json(scores)
        return
    published = compare_with_published(model or "", dataset or data.resolve().name.removesuffix(".tar"), scores)
    rows = [
        (key, value, *((published[key].published, published[key].difference) if key in published else ("", "")))
        for key, value in scores.items()
        if key != "n"
    ]
    how = "stretched min–max as published" if stretch else "not stretched"
    _output.table(f"{scores['n']:.0f} images, maps {how}", ("score", "here", "published", "difference"), rows)


def _score_runtime(
    data: Path,
    stretch: bool,
    update: Callable[[int, int | None], None],
    what: tuple[Path | None, str | None, Precision | None, Path | None, Path | None, str, int | None],
) -> SodScorer:
    from edgesod.evaluation import EvaluationSet, SodScorer

    pairs = EvaluationSet(data)
    scorer = SodScorer(full=True)
    with _open(*what) as runtime:
        for k, (_, image, truth) in enumerate(pairs):
            scorer.add(runtime(image).saliency, truth, stretch=stretch)
            update(k + 1, len(pairs))
    return scorer


def _open(
    engine: Path | None,
    model: str | None,
    precision: Precision | None,
    weights: Path | None,
    onnx: Path | None,
    backend: str,
    threads: int | None,
) -> Runtime:
    from edgesod.cli._runtime import open_runtime
    from edgesod.cli._source import recipe_and_onnx
    from edgesod.runtime import Runtime, open_session

    if weights is None and onnx is None:
        return open_runtime(engine, model, precision, backend, threads)
    if precision not in (None, "fp32"):
        raise UsageError(
            f"weights and ONNX files are scored in FP32, not {precision}", hint="build an engine, then eval --engine DIR"
        )
    with recipe_and_onnx(model=model, precision="fp32", weights=weights, onnx=onnx) as (recipe, path):
        return Runtime.from_session(open_session(path, "fp32", backend, threads), recipe)
