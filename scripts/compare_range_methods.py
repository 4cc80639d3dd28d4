"""Compare the ways to cut activation ranges: write each as INT8, and measure how far it drifts from FP32 on a scored set.

    python scripts/compare_range_methods.py --data DUTS-TR --hold-out --score-images 60 --out runs/ranges

A method is chosen by this table, so it is made on the hold-out; SOD is for scripts/int8_drift.py, which measures what was chosen.
Both INT8 schemes are compared: the CPUs' in OpenVINO and ONNX Runtime, TensorRT's in ONNX Runtime, which computes the file as
TensorRT will read it. Each row is kept in ``OUT/results.json`` once it is measured, so that a second start does what is left,
or everything where other files would be written now; then the model's table in ``docs/calibration.md`` is written from it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, get_args

from documents import around, at_least_one, replace_between, run, say
from int8_drift import DOCUMENT, RUNS, Pictures, int8_runtime, measured_of, open_runtime, quantised_by, score, write_int8

from edgesod import assets, zoo
from edgesod.calibration import calibrate
from edgesod.calibration.table import check_table, read_table
from edgesod.files import read_json, sha256_of, write_atomically
from edgesod.recipe import RangeMethod, Recipe, recipe_for

BEGIN, END = "<!-- range methods of {}: written by scripts/compare_range_methods.py -->", "<!-- end of range methods of {} -->"
"""Around the table of a model."""


def main() -> None:
    """Measure what is left to measure, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="u2netp", choices=zoo.names())
    parser.add_argument(
        "--calib", type=Path, nargs="+", help="folders or tars of images to calibrate on, in place of the shipped table"
    )
    parser.add_argument("--calib-images", type=at_least_one, default=128)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="set to score on; several for its parts")
    parser.add_argument("--hold-out", action="store_true", help="score the hold-out of a training set alone, every 20th stem")
    parser.add_argument("--score-images", type=at_least_one, help="so many, spread over the set; all by default")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=at_least_one)
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    options = parser.parse_args()

    recipe, onnx = recipe_for(options.model, "int8"), zoo.shipped(options.model).onnx
    marks = BEGIN.format(options.model), END.format(options.model)
    around(options.document, *marks)
    table_file = options.out / "table.json" if options.calib else assets.tables() / f"{recipe.stem}.json"
    if options.calib and not table_file.is_file():
        say(f"calibrating on {options.calib_images} images")
        calibrate(onnx, recipe, options.calib, limit=options.calib_images).write(table_file)
    table = read_table(table_file)
    check_table(table, onnx, recipe)
    pictures = Pictures(options.data, options.score_images, hold_out=options.hold_out)
    what = {
        "onnx": table.onnx_sha256,
        "table": sha256_of(table_file),
        "written": written_now(onnx, recipe, table_file),
        "calibration": table.num_images,
        "scored": len(pictures.stems),
        "set": pictures.name,
        "of": pictures.of,
    }
    done = read_results(options.out, what)

    todo = [
        (method, scheme, backend)
        for scheme, backend in RUNS
        for method in get_args(RangeMethod)
        if method.endswith("-signed") <= (scheme == "tensorrt")  # those are for TensorRT's symmetric steps alone
        and f"{method} {scheme} {backend}" not in done["rows"]
    ]
    for k, (method, scheme, backend) in enumerate(todo):
        say(f"[{k + 1}/{len(todo)}] {method}, {scheme} scheme in {backend}")
        if not pictures.reference:
            with open_runtime(onnx, recipe, "fp32", "onnxruntime", options.threads) as runtime:
                done["fp32"] = score(runtime, pictures)
        quantised = quantised_by(recipe, method=method)
        with int8_runtime(onnx, quantised, table_file, scheme, backend, options.threads) as runtime:
            done["rows"][f"{method} {scheme} {backend}"] = score(runtime, pictures)
        write_atomically(options.out / "results.json", json.dumps(done, indent=1).encode())
    replace_between(options.document, *marks, table_of(done, measured_of(options.model, None)))


def read_results(folder: Path, what: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured before of the same files on the same number of images."""
    path = folder / "results.json"
    found = read_json(path) if path.is_file() else {}
    return found if found.get("what") == what else {"what": what, "rows": {}}


def written_now(onnx: Path, recipe: Recipe, table_file: Path) -> dict[str, str]:
    """Return the SHA-256 of the INT8 file that is written for each scheme: it changes with the code that writes it."""
    found = {}
    for scheme in dict.fromkeys(scheme for scheme, _ in RUNS):
        with tempfile.TemporaryDirectory(prefix="edgesod-ranges-") as folder:
            found[scheme] = sha256_of(write_int8(onnx, recipe, table_file, scheme, Path(folder)))
    return found


def table_of(done: dict[str, Any], measured: str) -> list[str]:
    """Return the table in Markdown, with the words on whose it is."""
    what, fp32 = done["what"], done["fp32"]
    headings = [f"{scheme} scheme, {backend}" for scheme, backend in RUNS]
    lines = [
        f"{measured}; {what['calibration']} calibration images, {what['scored']} of {what['of']} images of {what['set']} "
        f"(FP32: max-F {fp32['max_f']:.4f}, MAE {fp32['mae']:.4f}). "
        "Each cell: mean distance of the maps to FP32's · change of max-F · change of MAE.",
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
    return lines


if __name__ == "__main__":
    run(main)
