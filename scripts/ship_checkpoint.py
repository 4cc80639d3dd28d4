"""From a training set to the shipped model: train, then weights, FP32 ONNX, calibration table, scores and model card.

    python scripts/ship_checkpoint.py --data DUTS-TR --out runs/fast                  # trains what is left, then ships
    python scripts/ship_checkpoint.py --data DUTS-TR --checkpoint RUN/checkpoint-000040000 --sod SOD --history EARLIER/log.jsonl
    python scripts/ship_checkpoint.py --data DUTS-TR --sod SOD --model u2netp-fast --weights edgesod/models/u2netp/u2netp.safetensors

The last one ships a variant as it comes out of the weights of the network it was derived from, without training.
``DUTS-TR`` is laid out as its download page has it, or is any other set that ``edgesod train`` reads, with ``--set-name`` and
``--licence`` for the card. Its hold-out is scored, and never trained or calibrated on. ``SOD`` is scored too where it is given, and
never selected on. Everything is made before anything shipped is touched.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import model_card
import numpy as np
import torch
from documents import at_least_one, run, say
from safetensors.torch import load_file, save_file

from edgesod.calibration import calibrate
from edgesod.calibration.headroom import headroom, write_headroom
from edgesod.cli import train
from edgesod.errors import CheckFailed
from edgesod.evaluation import EvaluationSet, evenly_spread, hold_out
from edgesod.evaluation.datasets import dataset_of
from edgesod.files import replacing, replacing_folder, sha256_of
from edgesod.manifest import this_device
from edgesod.processing.pictures import decode_picture
from edgesod.processing.preprocess import preprocess
from edgesod.recipe import Recipe
from edgesod.runtime import Runtime, open_session
from trainer import networks
from trainer.export import export_weights, network_recipe, weights_recipe
from trainer.training.checkpoint import checkpoints, read_record

ROOT = Path(__file__).parents[1]
LARGEST_DIFFERENCE = 1 / 255
"""How far half-precision weights may move any pixel of a map: less than an 8-bit grey level."""
_COMPARED = 32
_SET = "DUTS-TR"
LICENCE_NOTE = (
    "Trained on DUTS-TR, whose images come from ImageNet DET and SUN and are for research; no licence file comes with them. "
    "The weights carry that note, as the authors' own do. No training image is shipped."
)


def main() -> None:
    """Write everything under ``edgesod/models/<name>/`` and ``calib/``, or nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="the training set: a folder, or tars of its parts")
    parser.add_argument("--recipe", default="fast", help="what --out trains by: a shipped training recipe, or a TOML file")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--out", type=Path, help="run folder to train in; goes on with what is there")
    which.add_argument("--checkpoint", type=Path, help="ship this one and train nothing")
    which.add_argument("--weights", type=Path, help="ship these, trained here as whatever they say, and train nothing")
    parser.add_argument(
        "--average",
        type=Path,
        nargs="*",
        default=[],
        help="other weights of the same training, to ship the mean of all instead",
    )
    parser.add_argument("--model", help="with --weights: a variant to make of them; what they say themselves by default")
    parser.add_argument(
        "--history",
        type=Path,
        nargs="*",
        default=[],
        help="log.jsonl of each run before that one, oldest first, or card.json of what it started from",
    )
    parser.add_argument("--sod", type=Path, nargs="+", help="the SOD set; several for its parts")
    parser.add_argument("--calib-images", type=at_least_one, default=128)
    parser.add_argument(
        "--score-images", type=at_least_one, help="so many of each set, evenly spread, to rehearse; all by default"
    )
    parser.add_argument("--hours", type=float, help="of all runs together; from their logs by default")
    parser.add_argument("--hardware", default=_hardware(), help="what it was trained on; this machine by default")
    parser.add_argument(
        "--set-name", help="what the card calls the training set; by default the well-known one it is by its folder"
    )
    parser.add_argument("--licence", help=f"the card's note on the weights' licence; wanted for any set but {_SET}")
    parser.add_argument("--note", default="", help="what else the card should say of the training")
    parser.add_argument("--into", type=Path, default=ROOT, help="checkout to write to")
    options = parser.parse_args()
    if options.model is not None and options.weights is None:
        parser.error("--model goes with --weights: a run says itself what it trained")
    if options.average and options.weights is not None:
        parser.error("--average goes with --checkpoint or --out")
    pairs = EvaluationSet(*options.data)  # what was named wrongly says so now, not hours later
    options.set_name = options.set_name or _known_name(pairs)
    if options.set_name != _SET and not options.licence:
        parser.error(f"the card's note on licences is of {_SET}: give --licence for {options.set_name or options.data[0]}")
    options.set_name = options.set_name or Path(options.data[0]).stem

    if options.out is not None:
        train.command(data=options.data, out=options.out, recipe=options.recipe, resume=True)
        options.checkpoint = checkpoints(options.out)[-1]
    with tempfile.TemporaryDirectory(prefix="edgesod-ship-") as folder:
        name, beside, table = _make(options, pairs, Path(folder))
        model, calib = options.into / "edgesod" / "models" / name, options.into / "calib" / table.name
        _put_in_place(beside, model, table, calib)
    print("shipped " + ", ".join(str(target) for target in (*(model / file.name for file in beside), calib)))


def _put_in_place(beside: Sequence[Path], model: Path, table: Path, calib: Path) -> None:
    """Put a model's folder and its table where the old ones are: both, or neither where anything cannot be written."""
    with replacing(calib) as new_calib, replacing_folder(model) as new_model:
        shutil.copyfile(table, new_calib)
        for file in beside:
            shutil.copyfile(file, new_model / file.name)


def _known_name(pairs: EvaluationSet) -> str | None:
    known = dataset_of(pairs.images[pairs.stems[0]].folder)
    return None if known is None else known.name


def _make(options: argparse.Namespace, pairs: EvaluationSet, work: Path) -> tuple[str, list[Path], Path]:
    """Make every file in ``work``; return the model's name, the files of its folder, and its calibration table."""
    name, source, record = _source(options, work)
    recipe = network_recipe(name, "fp32")
    trained_on, held = hold_out(pairs.stems)
    if record is not None and (of := record.get("data")) and of["pairs"] != len(pairs):
        raise CheckFailed(
            f"{options.checkpoint} was trained on a set of {of['pairs']} pairs, and --data has {len(pairs)}",
            hint="give the very set: its hold-out is what was not trained on",
        )
    sets = {"hold-out": (pairs, held)}
    if options.sod is not None:
        sod = EvaluationSet(*options.sod)
        sets["SOD"] = (sod, sod.stems)
    runs, validations = [], []
    if record is not None:
        runs, validations = model_card.read_history(_logs(options), record["images_seen"])
    pictures = _pictures(pairs, trained_on, options.calib_images, work / "pictures")

    weights, onnx, table_file = work / f"{name}.safetensors", work / f"{name}.onnx", work / f"{recipe.stem}.json"
    stored = _store(source, weights, recipe, pictures)
    say(f"weights: {stored['stored']}, maps differ by at most {stored['largest_difference']:.1e}")
    difference = export_weights(recipe, weights, onnx)
    say(f"exported: torch and ONNX differ by at most {difference:.1e}")

    table = calibrate(onnx, network_recipe(name, "int8"), work / "pictures", limit=options.calib_images)
    table.write(table_file)
    layers = headroom(onnx, table)
    write_headroom(layers, work / "fp16.csv")
    highest = max(layers, key=lambda layer: layer.largest)
    say(f"calibrated on {table.num_images} images; the largest value is {highest.largest:.4g}")

    scores, worst, made = {}, {}, []
    with Runtime.from_session(open_session(onnx, "fp32", "auto"), recipe) as runtime:
        for key, (scored, stems) in sets.items():
            scores[key], worst[key] = model_card.score(runtime, scored, evenly_spread(stems, options.score_images))
            made.append(work / f"worst-{key.lower()}.png")
            model_card.write_worst(worst[key], made[-1])
            say(f"{key}: {scores[key]}")
        model_card.write_photographs(runtime, work / "photographs.jpg")
    if record is not None:
        model_card.draw_history(validations, work / "curve.svg")
        made.append(work / "curve.svg")
    hours = [run["hours"] for run in runs]
    card = {
        "name": name,
        "parameters": networks.config(name).num_parameters,
        "sha256": {weights.name: sha256_of(weights), onnx.name: sha256_of(onnx)},
        "set": options.set_name,
        "data": f"{options.set_name} without the hold-out sorted(stems)[::20]: {len(trained_on):,} of {len(pairs):,} pairs",
        "derived_from": networks.config(name).derived_from or None,
        "made_of": None if record is not None else {"file": options.weights.name, "sha256": sha256_of(options.weights)},
        "training": {
            "note": options.note,
            "averaged_with": [sha256_of(file) for file in options.average],
            "last_recipe": record["recipe"] if record is not None else None,
            "images_seen": sum(run["images_seen"] for run in runs),
            "hours": options.hours or (round(sum(hours), 2) if hours and all(hours) else None),
            "hardware": options.hardware,
            "runs": runs,
        },
        "weights": stored,
        "fp16": {
            "images": table.num_images,
            "largest": highest.largest,
            "layer": highest.layer,
            "factor": highest.factor,
            "layers": len(layers),
            "stay_fp32": [layer.layer for layer in layers if not layer.fits],
        },
        "hold_out": validations,
        "scores": scores,
        "worst": {key: [{"stem": case.stem, "mae": round(case.mae, 3)} for case in cases] for key, cases in worst.items()},
        "scored_at": list(recipe.size_hw),
        "licence": options.licence or LICENCE_NOTE,
    }
    (work / "card.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (work / "README.md").write_text(model_card.card_text(card), encoding="utf-8")
    beside = [
        weights,
        onnx,
        *made,
        *(work / file for file in ("card.json", "README.md", "photographs.jpg", "fp16.csv")),
    ]
    return name, beside, table_file


def _source(options: argparse.Namespace, work: Path) -> tuple[str, Path, dict[str, Any] | None]:
    """Return the network, a file of its weights, and the record of the run that they come from, ``None`` where none is given."""
    if options.checkpoint is not None:
        record = read_record(options.checkpoint)
        name, source = record["recipe"]["network"], options.checkpoint / "ema.safetensors"
        return name, _mean([source, *options.average], name, work) if options.average else source, record
    recipe = weights_recipe(options.weights, "fp32", model=options.model)
    network = networks.create(recipe.model)
    networks.load_weights(network, options.weights)
    source = work / "given.safetensors"
    save_file(network.state_dict(), source, networks.WeightsMetadata(recipe.model, recipe.preprocessing).to_strings())
    return recipe.model, source, None


def _mean(files: Sequence[Path], name: str, work: Path) -> Path:
    """Write the mean of several weights of one network; return the file.

    Two ends of one training, averaged, see more than either (Wortsman et al., "Model soups", ICML 2022).
    """
    states = []
    for file in files:
        network = networks.create(name)
        networks.load_weights(network, file)
        states.append(network.state_dict())
    mean = {
        key: torch.stack([state[key] for state in states]).mean(0) if value.is_floating_point() else value
        for key, value in states[0].items()
    }
    target = work / "mean.safetensors"
    save_file(mean, target, networks.weights_metadata(files[0]).to_strings())
    return target


def _pictures(pairs: EvaluationSet, stems: Sequence[str], count: int, folder: Path) -> list[Path]:
    """Copy pictures that were trained on into a folder, evenly spread over them; return the files."""
    folder.mkdir()
    found = []
    for stem in evenly_spread(stems, count):
        place = pairs.images[stem]
        found.append(folder / (stem.replace(os.sep, "-") + Path(place.name).suffix))
        found[-1].write_bytes(place.read())
    return found


def _store(source: Path, target: Path, recipe: Recipe, pictures: Sequence[Path]) -> dict[str, Any]:
    """Write weights in half precision where maps stay what they are, else as they are; say which and why.

    Batch normalisation stays FP32: its statistics reach below what FP16 holds, and they are a hundredth of the file.
    """
    about = networks.weights_metadata(source)
    if about is None:
        raise CheckFailed(
            f"{source} does not say what it was trained on", hint="it is from before weights said so: train again"
        )
    if about.preprocessing != recipe.preprocessing:
        raise CheckFailed(f"{source} was trained on other preprocessing than {recipe.name} says")
    state = load_file(source)
    halved = {key: value.half() if value.is_floating_point() and value.ndim > 1 else value for key, value in state.items()}
    save_file(halved, target, about.to_strings())
    sample = evenly_spread(pictures, _COMPARED)
    largest = _largest_difference(recipe, source, target, sample)
    if not largest < LARGEST_DIFFERENCE:  # also where it is not a number
        target.write_bytes(source.read_bytes())
        why = f"In FP16 a pixel of {len(sample)} maps moved by {largest:.1e}, more than 1/255."
        return {"stored": "FP32", "largest_difference": 0.0, "why": why}
    why = f"Against FP32 weights no pixel of {len(sample)} maps moves by more than {largest:.1e} (bound: 1/255)."
    return {"stored": "FP16 but for batch normalisation", "largest_difference": largest, "why": why}


@torch.no_grad()
def _largest_difference(recipe: Recipe, one: Path, other: Path, pictures: Sequence[Path]) -> float:
    both = [networks.create(recipe.model).eval() for _ in range(2)]
    for network, file in zip(both, (one, other), strict=True):
        networks.load_weights(network, file)
    found = []
    for picture in pictures:
        x = torch.from_numpy(preprocess(decode_picture(picture.read_bytes(), str(picture)), recipe))
        left, right = (torch.sigmoid(network(x)[0]) for network in both)
        found.append(float((left - right).abs().max()))
    return float(np.max(found))  # not a number where one is


def _logs(options: argparse.Namespace) -> list[Path]:
    own = options.checkpoint.parent / "log.jsonl"
    return [*(log for log in options.history if log.resolve() != own.resolve()), own]


def _hardware() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}"
    return f"{os.cpu_count()} cores of {this_device().name}"


if __name__ == "__main__":
    run(main)
