"""``edgesod models``: what is shipped, and what was measured of it."""

from __future__ import annotations

from edgesod.cli import _options, _output

NAME = "models"


def command(as_json: _options.Json = False) -> None:
    """List the shipped models with their measured scores."""
    from edgesod import assets, zoo

    rows, records = [], []
    for name in zoo.names():
        model = zoo.shipped(name)
        recipes = sorted(path.stem for path in assets.recipes().glob(f"{name}-*.toml"))
        sod = model.card["scores"]["SOD"]
        records.append({"name": name, "recipes": recipes, "card": model.card})
        rows.append(
            (name, model.card["parameters"], sod["max_f"], sod["mae"], ", ".join(r.removeprefix(f"{name}-") for r in recipes))
        )
    if as_json:
        _output.result_json({"models": records})
        return
    _output.table("", ("model", "parameters", "SOD max-F", "SOD MAE", "recipes"), rows)
    _output.note("max-F and MAE on SOD (300 images) at the recipe's size; `edgesod build --model NAME --int8` builds one")
