"""Make a trained checkpoint the shipped model: EMA weights, FP32 ONNX, calibration table, model card.

    python scripts/ship_checkpoint.py --checkpoint RUN/checkpoint-000040000 --sod SOD --calib IMAGES [--note TEXT]

``SOD`` holds ``images/`` and ``masks/`` of the SOD set: it is scored, never selected on. ``IMAGES`` is a folder of training
images for the calibration table.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from edgesod import assets
from edgesod.calibration import calibrate
from edgesod.errors import CheckFailed
from edgesod.evaluation import EvaluationSet, accumulate_predictions, published_scores
from edgesod.files import read_json, sha256_of, write_atomically
from edgesod.recipe import recipe_for
from edgesod.runtime import Runtime, open_session
from trainer import networks
from trainer.export import export_weights, network_recipe

LICENCE_NOTE = (
    "Trained on DUTS-TR, whose images come from ImageNet DET and SUN and are for research; no licence file comes with them. "
    "The weights carry that note, as the authors' own do. No training image is shipped."
)


def main() -> None:
    """Write everything under ``edgesod/models/<name>/`` and ``calib/``, or nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--sod", type=Path, required=True)
    parser.add_argument("--calib", type=Path, required=True)
    parser.add_argument("--calib-images", type=int, default=128)
    parser.add_argument("--history", type=Path, nargs="*", default=[], help="log.jsonl of each run that led here, in order")
    parser.add_argument("--note", default="")
    options = parser.parse_args()

    record = read_json(options.checkpoint / "record.json")
    name = record["recipe"]["network"]
    with tempfile.TemporaryDirectory(prefix="edgesod-ship-") as folder:
        made = _make(options, record, Path(folder))
        # nothing shipped is touched before all of it is there
        for source, target in made.items():
            write_atomically(target, source.read_bytes())
    print(f"shipped {name}: {', '.join(str(target) for target in made.values())}")


def _make(options: argparse.Namespace, record: dict[str, Any], work: Path) -> dict[Path, Path]:
    """Make every file in ``work``; return where each belongs."""
    name = record["recipe"]["network"]
    recipe = network_recipe(name, "fp32")
    weights, onnx, table_file = work / f"{name}.safetensors", work / f"{name}.onnx", work / f"{recipe.stem}.json"
    shutil.copyfile(options.checkpoint / "ema.safetensors", weights)
    about = networks.weights_metadata(weights)
    if about is not None and about.preprocessing != recipe.preprocessing:
        raise CheckFailed(f"{weights.name} was trained on other preprocessing than {recipe.name} says")
    difference = export_weights(recipe, weights, onnx)
    print(f"exported: torch and ONNX differ by at most {difference:.1e}")

    table = calibrate(onnx, recipe_for(name, "int8"), options.calib, limit=options.calib_images)
    table.write(table_file)
    print(f"calibrated on {table.num_images} images")

    pairs = EvaluationSet(options.sod)
    with Runtime.from_session(open_session(onnx, "fp32", "auto"), recipe) as runtime:
        predictions = ((runtime(image).saliency, truth) for _, image, truth in pairs)
        scores = accumulate_predictions(predictions).scores()
    print(f"SOD: {scores}")
    card = {
        "name": name,
        "parameters": networks.config(name).num_parameters,
        "sha256": {weights.name: sha256_of(weights), onnx.name: sha256_of(onnx)},
        "data": "DUTS-TR without the hold-out sorted(stems)[::20]: 10,025 of 10,553 pairs, longest side at most 352 pixels",
        "training": {
            "note": options.note,
            "last_recipe": record["recipe"],
            "images_seen_by_run": [_seen(log) for log in options.history],
        },
        "hold_out": [entry for log in options.history for entry in _validations(log)],
        "scores": {"SOD": {key: round(float(value), 4) for key, value in scores.items()}},
        "scored_at": list(recipe.size_hw),
        "licence": LICENCE_NOTE,
    }
    card_file, text_file = work / "card.json", work / "README.md"
    card_file.write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    text_file.write_text(_card_text(card), encoding="utf-8")
    made = {file: assets.models() / name / file.name for file in (weights, onnx, card_file, text_file)}
    return made | {table_file: assets.tables() / table_file.name}


def _card_text(card: dict[str, Any]) -> str:
    """Return the model card as Markdown."""
    sod, (height, width) = card["scores"]["SOD"], card["scored_at"]
    paper = published_scores(card["name"], "SOD")
    lines = [
        f"# {card['name']}",
        "",
        f"{card['parameters']:,} parameters, trained from scratch by `edgesod train`; written by `scripts/ship_checkpoint.py`.",
        "",
        f"- **Data**: {card['data']}.",
        f"- **Training**: {card['training']['note']} Images seen, run after run, as last logged (every 25 steps): "
        + ", ".join(f"{n:,}" for n in card["training"]["images_seen_by_run"])
        + ".",
        f"- **Licence**: {card['licence']}",
        "",
        f"## SOD, {sod['n']:.0f} images, {height}×{width}, FP32, maps stretched min–max as published evaluations do",
        "",
        "| score | here | the paper's |",
        "|---|---|---|",
        f"| max-F (of mean precision and recall) | {sod['max_f']:.3f} | {paper['max_f']:.3f} |",
        f"| MAE | {sod['mae']:.3f} | {paper['mae']:.3f} |",
        f"| maximum of the mean F curve | {sod['max_f_mean']:.3f} | – |",
        f"| weighted F | {sod['weighted_f']:.3f} | – |",
        f"| S-measure | {sod['s_measure']:.3f} | – |",
        "",
        "SOD was scored, never selected on. Few images were seen: expect missed and partial subjects, most of all against cluttered "
        "backgrounds, and with several subjects.",
        "",
        "## Hold-out of DUTS-TR while training (EMA weights, about 100 images, at the training size, not stretched)",
        "",
        "| images seen in the run | size | max-F | MAE |",
        "|---|---|---|---|",
        *(f"| {v['seen']:,} | {v['validation_size']} | {v['max_f']:.3f} | {v['mae']:.3f} |" for v in card["hold_out"]),
        "",
    ]
    return "\n".join(lines)


def _entries(log: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def _seen(log: Path) -> int:
    return max(int(entry["seen"]) for entry in _entries(log))


def _validations(log: Path) -> list[dict[str, float]]:
    kept = ("seen", "validation_size", "max_f", "max_f_mean", "mae")
    return [{key: entry[key] for key in kept} for entry in _entries(log) if "max_f" in entry]


if __name__ == "__main__":
    main()
