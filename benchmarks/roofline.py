"""How near U²-NetP, U²-Net and BASNet come to what this machine can do at most, in FP32 and INT8, and what bounds them.

    python benchmarks/roofline.py --json roofline.json --document docs/performance.md
    python benchmarks/roofline.py --networks u2netp --rounds 3

Needs torch, for the networks that are not shipped: these have random weights from a seed, BatchNorm settled on the photographs
that scikit-image carries, and INT8 ranges from the same; so their speed means something and their maps nothing. Engines are built
by `edgesod.build`, gate included, and kept in --work for the next time. The machine's peaks are measured before, between and
after, the best of each counts. A time is the median over interleaved rounds of a round's best run of the network alone; a share
is the least time (arithmetic at the peak, or traffic at the bandwidth, whichever takes longer) over that.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))  # for documents.py, which they share
from documents import at_least_one, replace_between, run, say

from edgesod import build, zoo
from edgesod.bench.compare import compare_speed
from edgesod.bench.environment import environment
from edgesod.bench.measure import bench_frame
from edgesod.bench.peaks import MeasuredPeaks, measure_peaks
from edgesod.bench.roofline import Peaks, standing, work_of
from edgesod.export.simplify import simplify_onnx
from edgesod.files import replacing, write_atomically
from edgesod.manifest import FILE_NAME, read_manifest, this_device
from edgesod.processing.pictures import PHOTOGRAPHS, photograph
from edgesod.processing.preprocess import preprocess
from edgesod.recipe import GateBounds, Precision, Recipe, recipe_for
from edgesod.runtime import Runtime

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = {"u2netp": 320, "u2net": 320, "basnet": 256}
"""And the size their papers take."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
FIELDS = {"fp32": "fp32", "int8": "int8", "memory": "gb_s"}
"""What reached a peak is kept by the one name, the peak by the other."""
BEGIN, END = "<!-- roofline: written by benchmarks/roofline.py -->", "<!-- end of roofline -->"
ANYTHING = GateBounds(map_mae=1, mae_drift=1, max_f_drift=1)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rounds", type=at_least_one, default=9)
    parser.add_argument("--threads", type=at_least_one, help="of engines and peaks; every physical core by default")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "roofline", help="folder for ONNX files and engines")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to a file")
    parser.add_argument("--document", type=Path, help="document whose table is written anew")
    options = parser.parse_args()
    folders = {name: [engine(options.work, name, precision) for precision in PRECISIONS] for name in options.networks}
    peaks, times = [measure_peaks(options.threads)], {}
    for name, pair in folders.items():
        say(f"timing {name}")
        runtimes = [Runtime(folder, threads=options.threads) for folder in pair]
        times[name] = compare_speed(runtimes, bench_frame(), rounds=options.rounds)
        for runtime in runtimes:
            runtime.close()
        peaks.append(measure_peaks(options.threads))
    report = summarise(folders, times, peaks) | {"rounds": options.rounds, "environment": environment(this_device())}
    if options.json:
        write_atomically(options.json, (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())
    lines = as_table(report)
    print("\n".join(lines))
    if options.document:
        replace_between(options.document, BEGIN, END, lines)


def engine(work: Path, name: str, precision: Precision) -> Path:
    """Return the folder of an engine, built unless it is there from the same recipe and ONNX."""
    if name in zoo.names():
        recipe, onnx, table = recipe_for(name, precision), zoo.shipped(name).onnx, None
    else:
        size = NETWORKS[name]
        recipe = Recipe(model=name, size_hw=(size, size), precision=precision, gate=ANYTHING)
        onnx, table = work / f"{recipe.stem}.onnx", photographs(work) if precision == "int8" else None
        if not onnx.is_file():
            export(recipe, onnx, work)
    folder = work / "engines" / recipe.name
    if (folder / FILE_NAME).is_file() and read_manifest(folder).is_from(recipe, onnx):
        return folder
    say(f"building {recipe.name}")
    return build(recipe, onnx, table=table, root=folder.parent, on_step=say)


def export(recipe: Recipe, onnx: Path, work: Path) -> None:
    """Have torch write a network with random weights, in a process of its own: its threads have no business in this one."""
    say(f"exporting {recipe.stem}")
    sample = work / f"{recipe.stem}.npy"
    with replacing(sample) as temporary:
        np.save(temporary, np.concatenate([preprocess(photograph(name), recipe) for name in PHOTOGRAPHS]))
    with replacing(onnx.with_suffix(".plain.onnx")) as plain:
        task = {"do": "export", "network": recipe.model, "size": recipe.size_hw, "seed": 0, "weights": None}
        task |= {"sample": str(sample), "onnx": str(plain)}
        command = [sys.executable, str(ROOT / "scripts" / "gpu_torch.py"), json.dumps(task)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
        simplify_onnx(plain, onnx)


def photographs(work: Path) -> Path:
    """Return a folder with the photographs, to calibrate on."""
    folder = work / "photographs"
    folder.mkdir(parents=True, exist_ok=True)
    for name in PHOTOGRAPHS:
        cv2.imwrite(str(folder / f"{name}.png"), photograph(name))
    return folder


def summarise(folders: dict[str, list[Path]], times: dict[str, Any], peaks: list[MeasuredPeaks]) -> dict[str, Any]:
    """Return peaks and, by network and precision, how near it comes to them."""
    best = Peaks(*(max(getattr(found.peaks, field) for found in peaks) for field in ("gb_s", "fp32", "fp16", "int8")))
    how = {key: max(peaks, key=lambda found: getattr(found.peaks, field)).how[key] for key, field in FIELDS.items()}
    networks: dict[str, Any] = {}
    for name, pair in folders.items():
        for folder, speed in zip(pair, times[name], strict=True):
            manifest = read_manifest(folder)
            found = standing(work_of(folder / manifest.onnx_file), manifest.precision, best, speed.network_ms)
            weights = "shipped" if name in zoo.names() else "random, for speed only"
            networks[manifest.recipe.name] = {
                "backend": manifest.backend,
                "weights_from": weights,
                "spread": speed.spread,
                **found,
            }
    return {"threads": peaks[0].threads, "peaks": vars(best), "peaks_by": how, "networks": networks}


def as_table(report: dict[str, Any]) -> list[str]:
    """Return the report as lines of Markdown."""
    peaks, environment_ = report["peaks"], report["environment"]
    lines = [
        f"{environment_['cpu']}, threads: {report['threads']}. Peaks: FP32 {1e3 * peaks['fp32']:.0f} Gop/s, INT8 "
        f"{1e3 * peaks['int8']:.0f} Gop/s, memory {peaks['gb_s']:.1f} GB/s. {report['rounds']} rounds.",
        "",
        "| engine | backend | GMACs | traffic MB | least ms: arithmetic / memory | measured ms | share of the limit | bound by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in report["networks"].items():
        lines.append(
            f"| {name}{'' if found['weights_from'] == 'shipped' else ' *'} | {found['backend']} | {found['macs'] / 1e9:.2f} "
            f"| {found['bytes'] / 1e6:.0f} | {found['compute_ms']:.1f} / {found['memory_ms']:.1f} | {found['measured_ms']:.1f} "
            f"| {found['share']:.0%} | {found['bound_by']} |"
        )
    if any(found["weights_from"] != "shipped" for found in report["networks"].values()):
        lines += ["", "\\* random weights: for speed only"]
    return lines


if __name__ == "__main__":
    run(main)
