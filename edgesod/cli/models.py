"""``edgesod models``: what is shipped, what was measured of it, and the official weights that can be fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgesod.cli import _options, _output

NAME = "models"


def command(
    fetch: Annotated[
        str | None, typer.Option(metavar="NAME", help="Download a network's official weights and print their file.")
    ] = None,
    as_json: _options.Json = False,
) -> None:
    """List the shipped models, or fetch official weights.

    The list has each one's scores on SOD. Fetched weights are an ONNX file that says how its input is made: give it to --onnx.
    """
    if fetch is not None:
        path = _fetch(fetch)
        if as_json:
            _output.result_json({"onnx": str(path)})
        else:
            _output.note(f"edgesod build --onnx {path} --fp16")
            _output.result(str(path))
        return
    _list(as_json)


def _fetch(name: str) -> Path:
    """Download, simplify and mark official weights; return the file."""
    from edgesod import zoo
    from edgesod.export.about import About, write_about
    from edgesod.export.simplify import simplify_onnx

    weights = zoo.official(name)
    with _output.progress(f"fetch {name}") as update:
        downloaded = zoo.fetch(weights, update)
    target = downloaded.with_name(f"{name}-official.onnx")
    write_about(downloaded, target, About(name, weights.preprocessing), first_output_alone=True)
    simplify_onnx(target, target)
    return target


def _list(as_json: bool) -> None:
    from edgesod import assets, zoo
    from edgesod.evaluation.published import published_scores

    rows, records = [], []
    for name in zoo.names():
        model = zoo.shipped(name)
        recipes = sorted(path.stem for path in assets.recipes().glob(f"{name}-[0-9]*.toml"))
        sod = model.card["scores"].get("SOD", {})  # whoever retrains it need not have that set
        records.append({"name": name, "recipes": recipes, "card": model.card})
        rows.append(
            (
                name,
                model.card["parameters"],
                sod.get("max_f", "–"),
                sod.get("mae", "–"),
                ", ".join(r.removeprefix(f"{name}-") for r in recipes),
            )
        )
    official, official_rows = [], []
    for weights in zoo.OFFICIAL:
        paper = published_scores(weights.name, "SOD")
        is_here = zoo.cached(weights).is_file()
        official.append(
            {
                "name": weights.name,
                "url": weights.url,
                "sha256": weights.sha256,
                "bytes": weights.num_bytes,
                "licence": weights.licence,
                "origin": weights.origin,
                "published": {"SOD": paper},
                "is_cached": is_here,
            }
        )
        size = f"{weights.num_bytes / 1e6:.1f} MB"
        here = "yes" if is_here else "no"
        official_rows.append((weights.name, size, paper["max_f"], paper["mae"], weights.licence, here, weights.origin))
    if as_json:
        _output.result_json({"models": records, "official": official})
        return
    _output.table("shipped", ("model", "parameters", "SOD max-F", "SOD MAE", "recipes"), rows)
    _output.table(
        "official weights: `edgesod models --fetch NAME`, scores as published",
        ("model", "download", "SOD max-F", "SOD MAE", "licence", "here", "whose"),
        official_rows,
    )
    _output.note("max-F and MAE on SOD (300 images) at the recipe's size; `edgesod build --model NAME --int8` builds one")
