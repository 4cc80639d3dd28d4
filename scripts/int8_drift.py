"""Measure how far INT8 drifts from FP32 on a scored set, in every place that computes it, and hold it against the bounds.

    python scripts/int8_drift.py --data SOD                           # the shipped model, table and recipe
    python scripts/int8_drift.py --data DUTS-TR --hold-out --score-images 60 --float-nodes '/network/stage1/*'

Two files are written, as ``edgesod build --int8`` writes them: unsigned for CPUs, run in OpenVINO and ONNX Runtime; and symmetric
signed as TensorRT will read it, run in ONNX Runtime, which computes what is written. One JSON object goes to stdout, the table
to the document when a whole set was scored, each model's to a place of its own; the exit code is 1 where a drift is beyond its
bound.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from documents import around, at_least_one, replace_between, run, say

from edgesod import assets, zoo
from edgesod.builder.job import FP32, Job
from edgesod.calibration.schemes import Scheme
from edgesod.calibration.table import check_table, read_table
from edgesod.evaluation import EvaluationSet, SodScorer, evenly_spread, name_of
from edgesod.evaluation import hold_out as held_out
from edgesod.files import sha256_of
from edgesod.recipe import Precision, Recipe, load_recipe, recipe_for
from edgesod.runtime import Runtime, open_session

DOCUMENT = Path(__file__).parents[1] / "docs" / "calibration.md"
BEGIN, END = "<!-- drift of {}: written by scripts/int8_drift.py -->", "<!-- end of drift of {} -->"
"""Around the table of a model."""
RUNS: tuple[tuple[Scheme, str], ...] = (("cpu", "openvino"), ("cpu", "onnxruntime"), ("tensorrt", "onnxruntime"))
BOUNDS: dict[Scheme, dict[str, float]] = {
    "cpu": {"max_f": 0.005, "mae": 0.002},
    "tensorrt": {"max_f": 0.01, "mae": 0.004},
}


class Pictures:
    """What is scored: a set, its hold-out, or some of either evenly spread; and FP32's maps once they are there."""

    def __init__(self, data: Sequence[Path], count: int | None = None, *, hold_out: bool = False) -> None:
        self.pairs = EvaluationSet(*data)
        stems = held_out(self.pairs.stems)[1] if hold_out else self.pairs.stems
        self.of = len(stems)
        self.stems = evenly_spread(stems, count)
        self.name = name_of(data) + ("'s hold-out" if hold_out else "")
        self.reference: list[np.ndarray] = []


def main() -> int:
    """Measure, print, write; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="set to score on, such as SOD; several for its parts"
    )
    parser.add_argument("--score-images", type=at_least_one, help="how many of it, evenly spread; all by default")
    parser.add_argument("--hold-out", action="store_true", help="score the hold-out of a training set alone, every 20th stem")
    parser.add_argument("--model", default="u2netp", choices=zoo.names())
    parser.add_argument("--onnx", type=Path, help="FP32 ONNX; the shipped one by default")
    parser.add_argument("--table", type=Path, help="its calibration table; the shipped one by default")
    parser.add_argument("--recipe", type=Path, help="INT8 recipe; the shipped one by default")
    parser.add_argument("--float-nodes", nargs="*", help="layers to leave in float, in place of the recipe's")
    parser.add_argument("--threads", type=at_least_one)
    parser.add_argument(
        "--document",
        type=Path,
        help="where the table is written once a whole set is scored; docs/calibration.md by default, where all that is measured is "
        "shipped",
    )
    options = parser.parse_args()
    is_shipped = all(own is None for own in (options.onnx, options.table, options.recipe, options.float_nodes))

    recipe = load_recipe(options.recipe) if options.recipe else recipe_for(options.model, "int8")
    marks = BEGIN.format(recipe.model), END.format(recipe.model)
    document = options.document or (DOCUMENT if is_shipped else None)
    onnx = options.onnx or zoo.shipped(options.model).onnx
    if options.float_nodes is not None:
        recipe = quantised_by(recipe, float_nodes=tuple(options.float_nodes))
    table_file = options.table or assets.tables() / f"{recipe.stem}.json"
    table = read_table(table_file)
    check_table(table, onnx, recipe)
    pictures = Pictures(options.data, options.score_images, hold_out=options.hold_out)
    if len(pictures.stems) != pictures.of or options.hold_out:
        document = None
    if document is not None:
        around(document, *marks)
    say(f"FP32 on {len(pictures.stems)} pictures")
    with open_runtime(onnx, recipe, "fp32", "onnxruntime", options.threads) as runtime:
        fp32 = score(runtime, pictures)
    found: dict[str, Any] = {
        "set": pictures.name,
        "scored": len(pictures.stems),
        "of": pictures.of,
        "measured": measured_of(recipe.model, options.onnx),
        "onnx": table.onnx_sha256,
        "calibration_images": table.num_images,
        "method": recipe.quantisation.method,
        "float_nodes": recipe.quantisation.float_nodes,
        "fp32": fp32,
        "int8": [],
    }
    for scheme, backend in RUNS:
        say(f"INT8, {scheme} scheme in {backend}")
        with int8_runtime(onnx, recipe, table_file, scheme, backend, options.threads) as runtime:
            scores = score(runtime, pictures)
        drift = {f"{key}_drift": abs(scores[key] - fp32[key]) for key in BOUNDS[scheme]}
        holds = all(drift[f"{key}_drift"] <= bound for key, bound in BOUNDS[scheme].items())
        found["int8"].append(
            {"scheme": scheme, "backend": backend, **scores, **drift, "bounds": BOUNDS[scheme], "holds": holds}
        )
    lines = table_of(found)
    say("\n".join(lines))
    print(json.dumps(found, indent=1))
    if document is not None:
        replace_between(document, *marks, lines)
    return 0 if all(row["holds"] for row in found["int8"]) else 1


def measured_of(model: str, onnx: Path | None) -> str:
    """Return which network and which weights are measured, as a table says it: a shipped model's, or those of an ONNX file."""
    if onnx is not None:
        return f"ONNX `{sha256_of(onnx)[:12]}` ({model})"
    return f"Weights `{sha256_of(zoo.shipped(model).weights)[:12]}` ({model})"


def open_runtime(onnx: Path, recipe: Recipe, precision: Precision, backend: str, threads: int | None) -> Runtime:
    """Open an ONNX file with the recipe's pre- and postprocessing."""
    return Runtime.from_session(open_session(onnx, precision, backend, threads), recipe)


@contextmanager
def int8_runtime(
    onnx: Path, recipe: Recipe, table_file: Path, scheme: Scheme, backend: str, threads: int | None
) -> Iterator[Runtime]:
    """Open the INT8 version of an FP32 ONNX, written as a build on this machine would write it."""
    with tempfile.TemporaryDirectory(prefix="edgesod-drift-") as folder:
        path = write_int8(onnx, recipe, table_file, scheme, Path(folder))
        with open_runtime(path, recipe, "int8", backend, threads) as runtime:
            yield runtime


def write_int8(onnx: Path, recipe: Recipe, table_file: Path, scheme: Scheme, folder: Path) -> Path:
    """Write the INT8 version of an FP32 ONNX into an empty folder, as a build would; return the file."""
    shutil.copyfile(onnx, folder / FP32)
    job = Job(recipe, onnx, folder, (table_file,), on_step=lambda _: None, on_progress=lambda _done, _total: None)
    return folder / job.write_onnx("cpu-qdq" if scheme == "cpu" else "qdq")


def quantised_by(recipe: Recipe, **changes: Any) -> Recipe:
    """Return a recipe with another method or other layers left in float."""
    return recipe.model_copy(update={"quantisation": recipe.quantisation.model_copy(update=changes)})


def score(runtime: Runtime, pictures: Pictures) -> dict[str, float]:
    """Score a runtime, with the mean distance of its maps to those of the first that was asked, which is FP32, and its time."""
    scorer, distances, times = SodScorer(), [], []
    is_first = not pictures.reference
    for k, stem in enumerate(pictures.stems):
        image, truth = pictures.pairs.read(stem)
        result = runtime(image)
        times.append(result.times_ms["inference"])
        scorer.add(result.saliency, truth, stretch=True)
        if is_first:
            pictures.reference.append(np.array(result.map_hw, np.float32))
        distances.append(float(np.abs(result.map_hw - pictures.reference[k]).mean()))
    scores = scorer.scores()
    return {
        "map_mae": float(np.mean(distances)),
        "max_f": scores["max_f"],
        "mae": scores["mae"],
        "inference_ms": float(np.median(times)),
    }


def table_of(found: dict[str, Any]) -> list[str]:
    """Return the table in Markdown."""
    kept = f", {len(found['float_nodes'])} patterns of layers left in float" if found["float_nodes"] else ""
    lines = [
        f"{found['measured']}; {found['scored']} of {found['of']} images of {found['set']}, `{found['method']}` ranges of "
        f"{found['calibration_images']} images{kept}.",
        "",
        "| | max-F | MAE | drift of max-F | drift of MAE | maps differ by | ms, median |",
        "|---|---|---|---|---|---|---|",
        f"| FP32, onnxruntime | {found['fp32']['max_f']:.4f} | {found['fp32']['mae']:.4f} | | | | {found['fp32']['inference_ms']:.1f} |",
    ]
    for row in found["int8"]:
        drifts = [
            f"{row[f'{key}_drift']:.4f} ({'≤' if row[f'{key}_drift'] <= bound else '>'} {bound:.3f})"
            for key, bound in row["bounds"].items()
        ]
        lines.append(
            f"| INT8, {row['scheme']} scheme, {row['backend']} | {row['max_f']:.4f} | {row['mae']:.4f} | {' | '.join(drifts)} | "
            f"{row['map_mae']:.4f} | {row['inference_ms']:.1f} |"
        )
    return lines


if __name__ == "__main__":
    run(main)
