"""Take every network from scratch to a clip, by the commands a person would type, and write down what came of it.

    python scripts/six_networks.py --data DUTS-TR --sod SOD --calib IMAGES --clip clip.mp4 --out runs/six

For each network: train a few hundred steps, score, export (onnxsim, parity), build FP32, FP16 and INT8 engines from the weights,
run one on the clip. What is done is not done again: each step's result is kept in ``OUT/NETWORK/results.json``, and training goes
on from its last checkpoint. In the end, or at once with ``--report-only``, the table in ``docs/networks.md`` and the loss curves
in ``docs/curves/`` are written from those files.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from documents import at_least_one, replace_between, run, say
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from edgesod.errors import InputError
from edgesod.evaluation import EvaluationSet, SodScorer
from edgesod.files import read_json, replacing, write_atomically
from trainer import networks
from trainer.training.log import read_log

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- six networks: written by scripts/six_networks.py -->", "<!-- end of six networks -->"

# an input each network takes, near 128 and the smallest there is; SRM's maps are whole at 32·k + 1
SIZES = {"srm": 129}
SMALLEST = {"u2net": 64, "u2netp": 64, "basnet": 64, "poolnet": 128, "bapoolnet": 128, "srm": 65}

RECIPE = """network = "{network}"
precision = "auto"
loss = {{ bce = 1.0, iou = 1.0 }}
optimizer = "adamw"
weight_decay = 1e-4
warmup_images = {warmup}
clip_norm = 5.0
ema_decay = 0.95
log_every = 1
validate_every = 1_000_000
validate_images = {hold_out}
checkpoint_every = {checkpoint}

[[stages]]
images = {images}
size = {size}
batch = {batch}
lr = {lr}
lr_end = {lr_end}
"""


class Failed(Exception):
    """A command ended with something else than 0."""


def main() -> None:
    """Do what is left to do, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="training set: images/ and masks/, or tars of its parts"
    )
    parser.add_argument("--sod", type=Path, nargs="+", required=True, help="set to score on; several for its parts")
    parser.add_argument("--calib", type=Path, nargs="+", required=True, help="folders or tars of images to calibrate on")
    parser.add_argument("--clip", type=Path, required=True, help="video to run on")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, engines, clips and results")
    parser.add_argument("--networks", nargs="+", default=sorted(SMALLEST), choices=sorted(SMALLEST))
    parser.add_argument("--steps", type=at_least_one, default=250)
    parser.add_argument("--batch", type=at_least_one, default=4)
    parser.add_argument("--smallest", action="store_true", help="at the smallest sizes, to prove that everything runs")
    parser.add_argument("--frames", type=at_least_one, default=48, help="of the clip")
    parser.add_argument("--threads", type=at_least_one, default=None)
    parser.add_argument("--docs", type=Path, default=DOCS, help="where networks.md and curves/ are written")
    parser.add_argument("--report-only", action="store_true")
    options = parser.parse_args()
    if not options.report_only:
        started = time.monotonic()
        todo = [(name, step) for name in options.networks for step in STEPS]
        for k, (name, step) in enumerate(todo):
            say(f"[{k + 1}/{len(todo)}, {(time.monotonic() - started) / 60:.0f} min] {name}: {step}")
            Network(name, options).do(step)
    report(options)


class Network:
    """One network on its way, and its results so far."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name, self.options = name, options
        self.folder = options.out / name
        self.size = SMALLEST[name] if options.smallest else SIZES.get(name, 128)
        self.weights = self.folder / f"{name}.safetensors"
        self.results = read_results(self.folder)

    def do(self, step: str) -> None:
        """Do a step unless it is done, and keep its result; a failure is a result too, but is tried again next time."""
        if step in self.results and "failed" not in self.results[step]:
            say("  done before")
            return
        began = time.monotonic()
        try:
            found = STEPS[step](self)
        except Failed as error:
            found = {"failed": str(error)}
            say(f"  failed: {error}")
        self.results[step] = found | {"minutes": round((time.monotonic() - began) / 60, 2)}
        write_atomically(self.folder / "results.json", json.dumps(self.results, indent=1).encode())

    def train(self) -> dict[str, Any]:
        """Train from scratch; keep the averaged weights and the log, and drop the checkpoints, which are large."""
        run, steps, batch = self.folder / "run", self.options.steps, self.options.batch
        recipe = RECIPE.format(
            network=self.name,
            images=steps * batch,
            size=self.size,
            batch=batch,
            lr=networks.config(self.name).scratch_rate,
            lr_end=networks.config(self.name).scratch_rate / 10,
            warmup=max(1, steps * batch // 10),
            checkpoint=max(batch, steps * batch // 4),
            hold_out=min(50, steps),
        )
        write_atomically(self.folder / "recipe.toml", recipe.encode())
        data = each("--data", self.options.data)
        words = ["train", "--recipe", self.folder / "recipe.toml", *data, "--out", run, "--resume"]
        checkpoint = Path(self.edgesod(*words, *self._threads()).splitlines()[-1])
        shutil.copyfile(checkpoint / "ema.safetensors", self.weights)
        for folder in run.glob("checkpoint-*"):
            shutil.rmtree(folder)
        losses = self.losses()[1]
        tenth = max(1, len(losses) // 10)
        return {
            "steps": steps,
            "batch": batch,
            "size": self.size,
            "loss_first": float(np.mean(losses[:tenth])),
            "loss_last": float(np.mean(losses[-tenth:])),
        }

    def losses(self) -> tuple[list[int], list[float]]:
        """Return images seen and loss, step by step."""
        entries = [entry for entry in read_log(self.folder / "run" / "log.jsonl") if "loss" in entry]
        return [entry["seen"] for entry in entries], [entry["loss"] for entry in entries]

    def evaluate(self) -> dict[str, Any]:
        """Score the weights at the size they were trained at."""
        words = ["eval", *each("--data", self.options.sod), "--weights", self.weights, "--size", self.size, "--json"]
        return dict(json.loads(self.edgesod(*words, *self._threads())))

    def export(self) -> dict[str, Any]:
        """Export, simplify, compare with torch; count what is in the graph."""
        path = self.folder / f"{self.name}-{self.size}.onnx"
        done = json.loads(self.edgesod("export", "--weights", self.weights, "--size", self.size, "--out", path, "--json"))
        model = onnx.load(str(path))
        done["ops"] = dict(Counter(node.op_type for node in model.graph.node).most_common())
        done["opset"] = model.opset_import[0].version
        done["onnx"] = path.name
        return dict(done)

    def build(self, precision: str) -> dict[str, Any]:
        """Build an engine from the weights; the gate compares it with FP32 on photographs."""
        words = ["build", "--model", self.name, "--weights", self.weights, "--size", self.size, f"--{precision}"]
        if precision != "fp32":
            words += each("--calib", self.options.calib)
        out = self.folder / "engines"
        return dict(json.loads(self.edgesod(*words, "--out", out, "--json", *self._threads())))

    def run(self) -> dict[str, Any]:
        """Run the INT8 engine, or the best that was built, on the clip."""
        built = [p for p in ("int8", "fp32") if "engine" in self.results.get(f"build {p}", {})]
        if not built:
            raise Failed("no engine was built")
        engine = self.results[f"build {built[0]}"]["engine"]
        words = ["run", "--engine", engine, "--video", self.options.clip, "--max-frames", self.options.frames]
        out = ["--out", self.folder / "clip.mp4", "--contact-sheet", self.folder / "clip.png", "--json"]
        done = json.loads(self.edgesod(*words, *out, *self._threads()))
        kept = {key: done[key] for key in ("frames", "fps", "precision", "backend")}
        return kept | {"inference_ms": done["stages_ms"]["inference"]["p50"]}

    def edgesod(self, *words: object) -> str:
        """Run the command line and return what it prints; its progress goes to the terminal."""
        command = [sys.executable, "-m", "edgesod", *map(str, words)]
        log = self.folder / "stderr.log"
        self.folder.mkdir(parents=True, exist_ok=True)
        is_watched = sys.stderr.isatty()
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"$ edgesod {' '.join(map(str, words))}\n")
            file.flush()
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=None if is_watched else file, text=True, check=False)
        if done.returncode == 130:
            raise KeyboardInterrupt
        if done.returncode:
            said = "" if is_watched else log.read_text(encoding="utf-8").splitlines()[-2:]
            raise Failed(f"edgesod {words[0]} ended with {done.returncode}: {' '.join(said)}".strip())
        return done.stdout.strip()

    def _threads(self) -> list[object]:
        return ["--threads", self.options.threads] if self.options.threads else []


def each(option: str, values: Iterable[object]) -> list[object]:
    """Return the words that give an option several times."""
    return [word for value in values for word in (option, value)]


STEPS: dict[str, Callable[[Network], dict[str, Any]]] = {
    "train": Network.train,
    "eval": Network.evaluate,
    "export": Network.export,
    "build fp32": lambda network: network.build("fp32"),
    "build fp16": lambda network: network.build("fp16"),
    "build int8": lambda network: network.build("int8"),
    "run": Network.run,
}


def read_results(folder: Path) -> dict[str, Any]:
    """Return what was done of a network."""
    path = folder / "results.json"
    return read_json(path) if path.is_file() else {}


def report(options: argparse.Namespace) -> None:
    """Draw the curves and put the tables between the marks in ``networks.md``."""
    found = {name: results for name in sorted(SMALLEST) if (results := read_results(options.out / name))}
    if not found:
        raise InputError(f"nothing was done yet in {options.out}", hint="leave --report-only out")
    for name, results in found.items():
        if "loss_last" in results.get("train", {}):
            draw_curve(Network(name, options), results["train"], options.docs / "curves" / f"{name}.png")
    replace_between(options.docs / "networks.md", BEGIN, END, tables(found, baseline(options)))


def draw_curve(network: Network, train: dict[str, Any], path: Path) -> None:
    """Draw the loss of every step, and its mean over a twentieth of them."""
    seen, losses = network.losses()
    window = max(1, len(losses) // 20)
    smooth = np.convolve(losses, np.ones(window) / window, "valid")
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(seen, losses, alpha=0.35, label="each step")
    axes.plot(seen[window - 1 :], smooth, label=f"mean of {window}")
    axes.set(
        xlabel="images seen",
        ylabel="loss, summed over outputs",
        title=f"{network.name}, {train['size']}×{train['size']}, batch {train['batch']}",
        ylim=(0, None),
    )
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)


def baseline(options: argparse.Namespace) -> dict[str, float]:
    """Return the scores of a map that is white all over: what has to be beaten."""
    scorer = SodScorer()
    for _, _, truth in EvaluationSet(*options.sod):
        scorer.add(np.full(truth.shape, 255, np.uint8), truth)
    return scorer.scores()


def tables(found: dict[str, dict[str, Any]], white: dict[str, float]) -> list[str]:
    """Return the report's lines."""
    lines = [
        "| network | parameters | trained | loss, first → last tenth | SOD max-F / MAE | ONNX nodes | torch − ONNX |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, results in found.items():
        train, scores, export = (results.get(step, {}) for step in ("train", "eval", "export"))
        lines.append(
            f"| {name} | {networks.config(name).num_parameters:,} "
            f"| {cell(train, lambda t: '{steps} steps of {batch} at {size}²'.format(**t))} "
            f"| {cell(train, lambda t: '{loss_first:.2f} → {loss_last:.2f}'.format(**t))} "
            f"| {cell(scores, lambda s: '{max_f:.3f} / {mae:.3f}'.format(**s))} "
            f"| {cell(export, lambda e: str(sum(e['ops'].values())))} "
            f"| {cell(export, lambda e: '{largest_difference:.0e}'.format(**e))} |"
        )
    images = next((r["eval"]["n"] for r in found.values() if "n" in r.get("eval", {})), 0)
    lines += [
        "",
        f"Scored on {images} images of SOD, where a map that is white all over has max-F {white['max_f']:.3f} and MAE "
        f"{white['mae']:.3f}. The losses are sums over each network's own outputs and cannot be compared with each other.",
        "",
        "| network | FP32 | FP16 | INT8 | INT8 ÷ ONNX Runtime FP32 | clip |",
        "|---|---|---|---|---|---|",
    ]
    for name, results in found.items():
        builds = [results.get(f"build {precision}", {}) for precision in ("fp32", "fp16", "int8")]
        drifts = " | ".join(cell(b, lambda b: "{map_mae:.4f}, {mask_iou:.3f}".format(**b["drift"])) for b in builds)
        run = cell(results.get("run", {}), lambda r: "{frames} frames, {precision} in {backend}, {fps:.1f} fps".format(**r))
        lines.append(f"| {name} | {drifts} | {cell(builds[2], lambda b: '{speedup:.2f}×'.format(**b))} | {run} |")
    lines += [
        "",
        "FP32, FP16, INT8: how far the engine's maps are from FP32's in ONNX Runtime on the gate's photographs (mean absolute "
        "difference), and how well the masks agree (IoU).",
        "",
        " ".join(f"![Loss of {name}](curves/{name}.png)" for name in found if "loss_last" in found[name].get("train", {})),
    ]
    return lines


def cell(result: dict[str, Any], text: Callable[[dict[str, Any]], str]) -> str:
    """Return a table's cell: the text, or why there is none."""
    if not result:
        return "–"
    return "failed" if "failed" in result else text(result)


if __name__ == "__main__":
    run(main)
