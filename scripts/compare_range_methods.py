"""Compare the ways to cut activation ranges: build each as INT8, and measure how far it drifts from FP32 on a scored set.

    python scripts/compare_range_methods.py --calib IMAGES --data SOD --out runs/ranges

Both INT8 schemes are measured: the CPUs' in OpenVINO and ONNX Runtime, TensorRT's in ONNX Runtime, which computes the file as
TensorRT will read it. Each row is kept in ``OUT/results.json`` once it is measured, so that a second start does what is left;
then the table in ``docs/calibration.md`` is written from it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
from documents import replace_between, say

from edgesod import zoo
from edgesod.calibration import calibrate
from edgesod.calibration.qdq import write_qdq
from edgesod.calibration.schemes import Scheme
from edgesod.calibration.table import check_table, read_table
from edgesod.evaluation import EvaluationSet, SodScorer
from edgesod.files import read_json, write_atomically
from edgesod.manifest import this_device
from edgesod.recipe import RangeMethod, Recipe, recipe_for
from edgesod.runtime import Runtime, open_session

DOCUMENT = Path(__file__).parents[1] / "docs" / "calibration.md"
BEGIN, END = "<!-- range methods: written by scripts/compare_range_methods.py -->", "<!-- end of range methods -->"
RUNS: tuple[tuple[Scheme, str], ...] = (("cpu", "openvino"), ("cpu", "onnxruntime"), ("tensorrt", "onnxruntime"))


def main() -> None:
    """Measure what is left to measure, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="u2netp", choices=zoo.names())
    parser.add_argument("--calib", type=Path, required=True, help="folder of images to calibrate on")
    parser.add_argument("--data", type=Path, required=True, help="set to score on: images/ and masks/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--calib-images", type=int, default=128)
    parser.add_argument("--score-images", type=int, default=None, help="so many, spread over the set; all by default")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    options = parser.parse_args()

    recipe, onnx = recipe_for(options.model, "int8"), zoo.shipped(options.model).onnx
    table_file = options.out / "table.json"
    if not table_file.is_file():
        say(f"calibrating on {options.calib_images} images")
        calibrate(onnx, recipe, options.calib, limit=options.calib_images).write(table_file)
    table = read_table(table_file)
    check_table(table, onnx, recipe)
    pairs = EvaluationSet(options.data)
    count = min(options.score_images or len(pairs), len(pairs))
    stems = [pairs.stems[k * len(pairs) // count] for k in range(count)]
    what = {
        "onnx": table.onnx_sha256,
        "calibration": table.num_images,
        "scored": len(stems),
        "set": options.data.resolve().name,
    }
    if count < len(pairs):
        what["spread over"] = len(pairs)
    done = read_results(options.out, what)

    reference: list[np.ndarray] = []
    todo = [
        (method, scheme, backend)
        for scheme, backend in RUNS
        for method in get_args(RangeMethod)
        if method.endswith("-signed") <= (scheme == "tensorrt")  # those are for TensorRT's symmetric steps alone
        and f"{method} {scheme} {backend}" not in done["rows"]
    ]
    for k, (method, scheme, backend) in enumerate(todo):
        say(f"[{k + 1}/{len(todo)}] {method}, {scheme} scheme in {backend}")
        if not reference:
            with open_runtime(onnx, recipe, "fp32", "onnxruntime", options.threads) as runtime:
                reference, done["fp32"] = run(runtime, pairs, stems, [])
        path = options.out / "engine.onnx"
        reduce = scheme == "cpu" and not this_device().int8_dot_product
        write_qdq(
            onnx,
            path,
            table,
            method,
            scheme=scheme,
            float_nodes=recipe.quantisation.float_nodes,
            reduce_weights=reduce,
        )
        with open_runtime(path, recipe, "int8", backend, options.threads) as runtime:
            _, scores = run(runtime, pairs, stems, reference)
        path.unlink()
        done["rows"][f"{method} {scheme} {backend}"] = scores
        write_atomically(options.out / "results.json", json.dumps(done, indent=1).encode())
    write_document(options.document, done)


def read_results(folder: Path, what: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured before of the same model on the same number of images."""
    path = folder / "results.json"
    found = read_json(path) if path.is_file() else {}
    return found if found.get("what") == what else {"what": what, "rows": {}}


def open_runtime(onnx: Path, recipe: Recipe, precision: Any, backend: str, threads: int | None) -> Runtime:
    """Open an ONNX file with the recipe's pre- and postprocessing."""
    return Runtime.from_session(open_session(onnx, precision, backend, threads), recipe)


def run(
    runtime: Runtime, pairs: EvaluationSet, stems: list[str], reference: list[np.ndarray]
) -> tuple[list[np.ndarray], dict[str, float]]:
    """Score a runtime; return its maps where there is no reference yet, and its scores with the distance to one."""
    scorer, maps, distances = SodScorer(), [], []
    for k, stem in enumerate(stems):
        image, truth = pairs.read(stem)
        result = runtime(image)
        scorer.add(result.saliency, truth, stretch=True)
        if reference:
            distances.append(float(np.abs(result.map_hw - reference[k]).mean()))
        else:
            maps.append(np.array(result.map_hw, np.float32))
    scores = scorer.scores()
    return maps, {
        "map_mae": float(np.mean(distances)) if distances else 0.0,
        "max_f": scores["max_f"],
        "mae": scores["mae"],
    }


def write_document(path: Path, done: dict[str, Any]) -> None:
    """Put the table between the marks of a document."""
    what, fp32 = done["what"], done["fp32"]
    headings = [f"{scheme} scheme, {backend}" for scheme, backend in RUNS]
    lines = [
        f"{what['calibration']} calibration images, {what['scored']} images of {what['set']} (FP32: max-F {fp32['max_f']:.4f}, "
        f"MAE {fp32['mae']:.4f}). Each cell: mean distance of the maps to FP32's · change of max-F · change of MAE.",
        "",
        f"| method | {' | '.join(headings)} |",
        f"|---{'|---' * len(RUNS)}|",
    ]
    for method in get_args(RangeMethod):
        cells = []
        for scheme, backend in RUNS:
            row = done["rows"].get(f"{method} {scheme} {backend}")
            cells.append(
                f"{row['map_mae']:.4f} · {row['max_f'] - fp32['max_f']:+.4f} · {row['mae'] - fp32['mae']:+.4f}" if row else "–"
            )
        lines.append(f"| {method} | {' | '.join(cells)} |")
    replace_between(path, BEGIN, END, lines)


if __name__ == "__main__":
    main()
