"""What a network loses by being made faster: max-F on a scored set against end-to-end frames a second, as a table and a chart.

    python benchmarks/tradeoff.py --data SOD --calib DUTS-TR --json tradeoff.json \
        --chart docs/speed_against_accuracy.svg --document docs/performance.md

The shipped U²-NetP at the square sizes of --sizes draws a line. Beside it stands what may lie above it: sizes in between, edges
refined at the frame's size, the maps of two sizes averaged, inputs as oblong as pictures are (a portrait picture gets the same
turned), and the shipped u2netp-fast, which has no last decoder stage. Each network is exported by torch and written as INT8, as
a build writes it, with the ranges that the largest one of its kind had on pictures of --calib. All run in one process; time is
from a 1280×720 frame in memory to its mask, the median over interleaved rounds of a round's best run. Maps are resized to the
picture and stretched, as published scores are. "Above" is the distance in max-F to the line at the contender's own speed, or
to its fast end for what is faster still, with 95 % intervals from resampled pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))  # for documents.py and int8_drift.py
from documents import at_least_one, replace_between, run, say
from int8_drift import int8_runtime

from edgesod import zoo
from edgesod.bench.compare import ROUNDS, compare_speed
from edgesod.bench.environment import environment
from edgesod.bench.measure import bench_frame
from edgesod.calibration import calibrate
from edgesod.calibration.table import read_table
from edgesod.evaluation import EvaluationSet, SodScorer, evenly_spread, name_of
from edgesod.evaluation.metrics import BETA_SQUARED
from edgesod.files import replacing, sha256_of, write_atomically
from edgesod.manifest import this_device
from edgesod.processing.guided import refine
from edgesod.recipe import recipe_for
from edgesod.runtime import Runtime, choose_backend
from edgesod.types import Result
from trainer.export import export_weights

BEGIN, END = "<!-- speed against accuracy: written by benchmarks/tradeoff.py -->", "<!-- end of speed against accuracy -->"
SIZES = (320, 256, 192, 160)
OBLONG = ((224, 320), (192, 288))
"""Height and width, multiples of 32 as the network wants them, for pictures of about 3:2."""
RESAMPLES = 500
LINE, FAST = "u2netp", "u2netp-fast"
"""Shipped models: the one that draws the line, and the one made to be faster."""
KINDS = {
    "line": ("U²-NetP", "o", "0.25"),
    "between": ("a size in between", "o", "#2463c4"),
    "refined": ("edges refined", "^", "#0f8168"),
    "two": ("two sizes averaged", "P", "#8146c9"),
    "fast": ("u2netp-fast", "s", "#c2570c"),
    "oblong": ("oblong", "D", "#b3246b"),
    "oblong, fast": ("oblong u2netp-fast", "X", "#d11a1a"),
}
"""Of contenders: what the chart calls them, and its mark and colour."""


@dataclass(frozen=True, order=True)
class Engine:
    """One network: its input's height and width in pixels, and which shipped model it is."""

    height: int
    width: int
    model: str = LINE

    @property
    def name(self) -> str:
        """Its size, as a label."""
        return str(self.height) if self.height == self.width else f"{self.height}×{self.width}"

    @property
    def turned(self) -> Engine:
        """The same for portrait pictures."""
        return Engine(self.width, self.height, self.model)

    def fit(self, image: np.ndarray) -> Engine:
        """Return itself or the turned one, as the picture lies."""
        return self.turned if image.shape[0] > image.shape[1] else self


@dataclass(frozen=True)
class Contender:
    """One point of the chart: whose maps are averaged, and whether edges are refined at the frame's size."""

    kind: str
    engines: tuple[Engine, ...]

    @property
    def sizes(self) -> str:
        """Its sizes, as a label."""
        return " + ".join(engine.name for engine in self.engines)

    def combine(self, results: Sequence[Result], image: np.ndarray) -> Result:
        """Make one result of those of its engines for a picture, uint8 BGR ``(H, W, 3)``; maps are averaged at the largest's size."""
        saliency = results[0].map_hw
        if len(results) > 1:
            size_wh = saliency.shape[::-1]
            others = [cv2.resize(result.map_hw, size_wh, interpolation=cv2.INTER_LINEAR) for result in results[1:]]
            saliency = np.mean([saliency, *others], axis=0, dtype=np.float32)
        if "refined" in self.kind:
            saliency = refine(saliency, image)
        times_ms = {"inference": sum(result.times_ms["inference"] for result in results)}
        return Result(saliency, results[0].size_hw, results[0].threshold, times_ms)


@dataclass(frozen=True)
class Running:
    """A contender with its engines, called as a runtime is."""

    contender: Contender
    runtimes: Sequence[Runtime]

    def __call__(self, image: np.ndarray) -> Result:
        return self.contender.combine([runtime(image) for runtime in self.runtimes], image)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="set to score on, such as SOD; several for its parts"
    )
    parser.add_argument("--calib", type=Path, nargs="+", required=True, help="folders or tars of pictures to calibrate on")
    parser.add_argument("--calib-images", type=at_least_one, default=24)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="of the line, at least two")
    parser.add_argument("--limit", type=at_least_one, help="score so many pictures, evenly spread; all by default")
    parser.add_argument("--rounds", type=at_least_one, default=ROUNDS)
    parser.add_argument("--threads", type=at_least_one)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to a file")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the chart, as an SVG")
    parser.add_argument("--document", type=Path, help="document whose table is written anew")
    options = parser.parse_args()

    contenders = contenders_for(sorted(set(options.sizes), reverse=True))
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgesod-tradeoff-")))
        runtimes: dict[Engine, Runtime] = {}
        wanted = {engine: None for contender in contenders for e in contender.engines for engine in (e, e.turned)}
        for engine in wanted:
            say(f"making {engine.model} {engine.name}")
            runtimes[engine] = stack.enter_context(open_engine(engine, work, options))
        running = [Running(contender, [runtimes[engine] for engine in contender.engines]) for contender in contenders]
        say("timing")
        speeds = compare_speed(running, bench_frame(), rounds=options.rounds)  # type: ignore[arg-type]
        pairs = EvaluationSet(*options.data)
        scorers = score(contenders, runtimes, pairs, evenly_spread(pairs.stems, options.limit))
    fps = [1e3 / speed.ms for speed in speeds]
    rows = []
    for contender, speed, own, above in zip(contenders, speeds, scorers, above_line(contenders, fps, scorers), strict=True):
        total = merged(own).scores()
        row = {"kind": contender.kind, "sizes": contender.sizes, "fps": 1e3 / speed.ms, "ms": speed.ms, "spread": speed.spread}
        rows.append(row | {"max_f": total["max_f"], "mae": total["mae"]} | above)
    report = {
        "weights": {model: sha256_of(zoo.shipped(model).weights) for model in (LINE, FAST)},
        "set": name_of(options.data),
        "scored": len(scorers[0]),
        "of": len(pairs),
        "rounds": options.rounds,
        "cores": len(os.sched_getaffinity(0)),
        "calibration_images": options.calib_images,
        "contenders": rows,
        "environment": environment(this_device()),
    }
    lines = table(report)
    print("\n".join(lines))
    if options.json:
        write_atomically(options.json, (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())
    if options.chart:
        draw(report, options.chart)
    if options.document:
        if options.chart:
            place = os.path.relpath(options.chart, options.document.parent)
            lines += ["", f"![max-F against frames a second]({place})"]
        replace_between(options.document, BEGIN, END, lines)


def contenders_for(sizes: Sequence[int]) -> list[Contender]:
    """Return what is measured for a line of sizes, largest first."""
    between = [round((large + small) / 64) * 32 for large, small in pairwise(sizes)]
    return [
        *(Contender("line", (square(side),)) for side in sizes),
        *(Contender("between", (square(side),)) for side in between if side not in sizes),
        *(Contender("refined", (square(side),)) for side in sizes[1:]),
        *(Contender("two", (square(large), square(small))) for large, small in pairwise(sizes)),
        *(Contender("fast", (square(side, FAST),)) for side in sizes[:-1]),
        *(Contender("oblong", (Engine(*size_hw),)) for size_hw in OBLONG),
        *(Contender("oblong, fast", (Engine(*size_hw, FAST),)) for size_hw in OBLONG),
    ]


def square(side: int, model: str = LINE) -> Engine:
    """Return the engine of a square input."""
    return Engine(side, side, model)


@contextmanager
def open_engine(engine: Engine, work: Path, options: argparse.Namespace) -> Iterator[Runtime]:
    """Export shipped weights at a size and open them as INT8."""
    recipe = recipe_for(engine.model, "int8").model_copy(update={"size_hw": (engine.height, engine.width)})
    onnx, table_file = work / f"{recipe.stem}.onnx", work / f"{engine.model}.json"
    export_weights(recipe, zoo.shipped(engine.model).weights, onnx)
    if table_file.is_file():  # of another size: the same tensors
        ranges = read_table(table_file).model_copy(update={"onnx_sha256": sha256_of(onnx)})
    else:
        ranges = calibrate(onnx, recipe, options.calib, limit=options.calib_images, threads=options.threads)
    ranges.write(table_file)
    backend, _ = choose_backend("int8", "auto")
    with int8_runtime(onnx, recipe, table_file, "cpu", backend, options.threads) as runtime:
        yield runtime


def score(
    contenders: Sequence[Contender], runtimes: dict[Engine, Runtime], pairs: EvaluationSet, stems: Sequence[str]
) -> list[list[SodScorer]]:
    """Return a scorer a picture for each contender; an engine that several share runs once a picture."""
    scorers: list[list[SodScorer]] = [[] for _ in contenders]
    for k, stem in enumerate(stems):
        image, truth = pairs.read(stem)
        results = {engine: runtimes[engine](image) for engine in {engine.fit(image) for engine in runtimes}}
        for contender, own in zip(contenders, scorers, strict=True):
            own.append(SodScorer())
            combined = contender.combine([results[engine.fit(image)] for engine in contender.engines], image)
            own[-1].add(combined.saliency, truth, stretch=True)
        if (k + 1) % 50 == 0:
            say(f"scored {k + 1} of {len(stems)}")
    return scorers


def merged(scorers: Sequence[SodScorer]) -> SodScorer:
    """Return the scorer of all their pictures."""
    whole = SodScorer()
    for scorer in scorers:
        whole.merge(scorer)
    return whole


def above_line(
    contenders: Sequence[Contender], fps: Sequence[float], scorers: Sequence[Sequence[SodScorer]]
) -> list[dict[str, Any]]:
    """Return how far each contender's max-F is above the line at its speed, with its interval; nothing for what is slower than it.

    What is faster than the line's fast end is held against that end.
    Pictures are drawn with replacement, the same ones for all contenders, so that hard pictures are hard for all.
    """
    count = len(scorers[0])
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    shares = np.concatenate([np.ones((1, count)), drawn]) / count
    max_f = np.stack([max_f_by_share(own, shares) for own in scorers])
    line = sorted((k for k, contender in enumerate(contenders) if contender.kind == "line"), key=lambda k: fps[k])
    speeds = [fps[k] for k in line]
    found: list[dict[str, Any]] = []
    for k, contender in enumerate(contenders):
        if contender.kind == "line" or fps[k] < speeds[0]:
            found.append({"above": None, "above_95": None})
            continue
        above = max_f[k] - [np.interp(fps[k], speeds, one) for one in max_f[line].T]
        low, high = np.percentile(above[1:], (2.5, 97.5))
        found.append({"above": float(above[0]), "above_95": [float(low), float(high)]})
    return found


def max_f_by_share(scorers: Sequence[SodScorer], shares: np.ndarray) -> np.ndarray:
    """Return max-F of the pictures, one scorer each, for each row of shares ``(n, pictures)`` that they have of the whole."""
    curves = [scorer.curves() for scorer in scorers]
    precision, recall = (shares @ np.stack([getattr(curve, what) for curve in curves]) for what in ("precision", "recall"))
    f = (1 + BETA_SQUARED) * precision * recall / np.maximum(BETA_SQUARED * precision + recall, 1e-12)
    return np.asarray(f.max(axis=1))


def table(report: dict[str, Any]) -> list[str]:
    """Return the report as Markdown."""
    weights = ", ".join(f"`{sha256[:12]}` ({model})" for model, sha256 in report["weights"].items())
    lines = [
        f"Weights {weights}, INT8; {report['scored']} of {report['of']} pictures of {report['set']}; "
        f"{report['environment']['cpu']}, cores: {report['cores']}, {report['rounds']} rounds.",
        "",
        "| | size | max-F | MAE | ms, frame to mask | spread | FPS | max-F above the line (95 %) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in report["contenders"]:
        above = "–"
        if row["above"] is not None:
            above = f"{row['above']:+.4f} ({row['above_95'][0]:+.4f} to {row['above_95'][1]:+.4f})"
        lines.append(
            f"| {KINDS[row['kind']][0]} | {row['sizes']} | {row['max_f']:.4f} | {row['mae']:.4f} | {row['ms']:.1f} | "
            f"{row['spread']:.1%} | {row['fps']:.1f} | {above} |"
        )
    return lines


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw max-F against frames a second, the line first, as an SVG."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    for kind, (name, marker, colour) in KINDS.items():
        rows = sorted((row for row in report["contenders"] if row["kind"] == kind), key=lambda row: row["fps"])
        if not rows:
            continue
        fps, max_f = [row["fps"] for row in rows], [row["max_f"] for row in rows]
        axes.plot(fps, max_f, marker, color=colour, label=name, linestyle="-" if kind == "line" else "", zorder=3)
        for row in rows:
            is_line = kind == "line"
            axes.annotate(
                row["sizes"],
                (row["fps"], row["max_f"]),
                xytext=(-6, -12) if is_line else (6, 4),
                textcoords="offset points",
                fontsize=8,
                color=colour,
                ha="right" if is_line else "left",
            )
    axes.set(xlabel="frames a second, 1280×720 frame to mask", ylabel=f"max-F, {report['set']}")
    axes.margins(0.08)
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize=9)
    # text as text and ids from a fixed salt: a small file that is the same each time
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "edgesod"}), replacing(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    say(f"wrote {path}")


if __name__ == "__main__":
    run(main)
