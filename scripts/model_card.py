"""The pages and pictures of a model card: what a training run's logs say, the curve, failure cases, and the text around them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgesod import zoo
from edgesod.evaluation import EvaluationSet, accumulate_predictions, published_scores
from edgesod.evaluation.metrics import TRUTH_ABOVE
from edgesod.files import read_json, replacing
from edgesod.processing.effects import apply_effect
from edgesod.processing.sheet import contact_sheet
from edgesod.runtime import Runtime
from edgesod.stream.sinks.pictures import write_picture
from trainer.training.log import read_log

_WORST = 8
_CELL_WH = (160, 120)
_PHOTOGRAPHS = ("astronaut", "camera", "cat", "coffee", "coins", "rocket")
_STILL_RISING = 0.005


@dataclass(frozen=True)
class Case:
    """One picture's map beside its truth.

    Attributes:
        mae: Mean absolute difference of the two, the map as it is, not stretched.
        stem: Which picture.
        truth, saliency: uint8 ``(H, W)``, shrunk to a cell.
    """

    mae: float
    stem: str
    truth: np.ndarray
    saliency: np.ndarray


def read_history(logs: Sequence[Path], last_seen: int) -> tuple[list[dict[str, float | None]], list[dict[str, float]]]:
    """Return what each run of a training saw and how long it took, and the hold-out's scores over all of them.

    Args:
        logs: ``log.jsonl`` of every run, oldest first. In place of the first ones the ``card.json`` of the weights that the
            next one started from, which says what it knows of theirs.
        last_seen: Images that the checkpoint had seen in the last of them; what was logged after it is left out.

    Returns:
        One record a run: ``images_seen``, and ``hours``, ``None`` where the log has no speeds. And one record a validation,
        ``seen`` counting all runs.

    Raises:
        InputError: A log cannot be read.
    """
    runs: list[dict[str, float | None]] = []
    validations: list[dict[str, float]] = []
    before = 0
    for k, log in enumerate(logs):
        if log.suffix == ".json":
            card = read_json(log)
            runs += card["training"]["runs"]
            validations += [entry | {"seen": before + entry["seen"]} for entry in card["hold_out"]]
            before += card["training"]["images_seen"]
            continue
        entries = read_log(log)
        if k == len(logs) - 1:
            entries = [entry for entry in entries if entry["seen"] <= last_seen]
        kept = ("validation_size", "max_f", "max_f_mean", "mae")
        validations += [{"seen": before + e["seen"], **{key: e[key] for key in kept}} for e in entries if "max_f" in e]
        seen = last_seen if k == len(logs) - 1 else max((entry["seen"] for entry in entries), default=0)
        runs.append({"images_seen": seen, "hours": _hours(entries)})
        before += seen
    return runs, validations


def _hours(entries: Sequence[dict[str, float]]) -> float | None:
    steps = [(0.0, 0.0), *((entry["seen"], entry["images_per_s"]) for entry in entries if "images_per_s" in entry)]
    if len(steps) < 2:
        return None
    return sum((here - last) / speed for (last, _), (here, speed) in pairwise(steps)) / 3600


def draw_history(validations: Sequence[dict[str, float]], path: Path) -> None:
    """Draw the hold-out's max-F and MAE over images seen, as an SVG; a mark's shape is the picture size."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasSVG(figure)
    for axes, key, name in zip(figure.subplots(2, sharex=True), ("max_f", "mae"), ("max-F", "MAE"), strict=True):
        axes.plot([v["seen"] for v in validations], [v[key] for v in validations], color="0.7", zorder=1)
        for size, marker in zip(sorted({v["validation_size"] for v in validations}), "osD^v", strict=False):
            there = [v for v in validations if v["validation_size"] == size]
            axes.scatter([v["seen"] for v in there], [v[key] for v in there], marker=marker, s=24, label=f"{size:.0f}²")
        axes.set(ylabel=f"hold-out {name}")
        axes.grid(alpha=0.3)
    axes.set(xlabel="images seen")
    figure.axes[0].legend(title="picture size", loc="lower right")
    # text as text and ids from a fixed salt: a small file that is the same each time
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "edgesod"}), replacing(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def score(runtime: Runtime, pairs: EvaluationSet, stems: Sequence[str]) -> tuple[dict[str, float], list[Case]]:
    """Return the scores over some pictures, maps stretched as published evaluations do, and the worst cases, worst first."""
    worst: list[Case] = []

    def predictions() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for stem in stems:
            image, truth = pairs.read(stem)
            saliency = runtime(image).saliency
            mae = float(np.abs(saliency - (truth > TRUTH_ABOVE)).mean())
            worst.append(Case(mae, stem, _shrunk(truth), _shrunk((saliency * 255).astype(np.uint8))))
            worst.sort(key=lambda case: -case.mae)
            del worst[_WORST:]
            yield saliency, truth

    scores = accumulate_predictions(predictions()).scores()
    return {key: round(float(value), 4) for key, value in scores.items()}, worst


def write_worst(cases: Sequence[Case], path: Path) -> None:
    """Write the sheet of worst cases: truth and map, two cases a row. The pictures themselves are not ours to show."""
    pairs = [cases[k : k + 2] for k in range(0, len(cases), 2)]
    rows = [[picture for case in pair for picture in (case.truth, case.saliency)] for pair in pairs]
    labels = ["   |   ".join(f"{case.stem}, MAE {case.mae:.2f}" for case in pair) for pair in pairs]
    write_picture(path, contact_sheet(rows, ["truth", "map"] * min(2, len(cases)), _CELL_WH, labels))


def write_photographs(runtime: Runtime, path: Path) -> None:
    """Write the sheet of photographs that may be shown, those of scikit-image: picture, map, overlay."""
    rows = []
    for name in _PHOTOGRAPHS:
        image = _photograph(name)
        result = runtime(image)
        rows.append([image, result.saliency, apply_effect("overlay", image, result)])
    pairs = [[*left, *right] for left, right in zip(rows[::2], rows[1::2], strict=True)]
    write_picture(path, contact_sheet(pairs, ["photograph", "map", "overlay"] * 2, _CELL_WH))


def card_text(card: dict[str, Any]) -> str:
    """Return the model card as Markdown."""
    weights, fp16 = card["weights"], card["fp16"]
    height, width = card["scored_at"]
    lines = [
        f"# {card['name']}",
        "",
        f"{card['parameters']:,} parameters, {_origin(card)}; written by `scripts/ship_checkpoint.py`.",
        "",
        f"- **Data**: {card['data']}.",
        f"- **Training**: {_training(card)}",
        "- **Selection**: on the hold-out alone; nothing was chosen by any other set.",
        f"- **Files**: `{card['name']}.safetensors` holds the averaged weights, {weights['stored']}; "
        f"`{card['name']}.onnx` is made of it and is FP32. {weights['why']}",
        f"- **FP16**: the largest value of any layer over {fp16['images']} images is {fp16['largest']:.4g} (`{fp16['layer']}`), "
        f"{fp16['factor']:.0f} times below FP16's end; {len(fp16['stay_fp32'])} of {fp16['layers']} layers stay FP32 in FP16 engines. "
        "Every layer's verdict is in [fp16.csv](fp16.csv).",
        f"- **Licence**: {card['licence']}",
        "",
        f"## Scores at {height}×{width}, FP32, maps stretched min–max as published evaluations do",
        "",
        *_score_table(card),
        "",
        *_history(card),
        "## What it sees and what not",
        "",
        "Photographs that may be shown, those that scikit-image carries, whether it finds their subject or not:",
        "",
        "![Photographs, maps and overlays](photographs.jpg)",
    ]
    for key, cases in card["worst"].items():
        lines += [
            "",
            f"The worst of {_name(card, key)}, by MAE. The pictures are not ours to show; their names tell where to look:",
            "",
            f"![Truth and map of the worst of {_name(card, key)}](worst-{key.lower()}.png)",
            "",
            ", ".join(f"`{case['stem']}` {case['mae']:.2f}" for case in cases) + ".",
        ]
    return "\n".join(lines) + "\n"


def _name(card: dict[str, Any], key: str) -> str:
    return f"{card['set']}'s hold-out" if key == "hold-out" else key


def _origin(card: dict[str, Any]) -> str:
    """Say where the network comes from."""
    if (whole := card["derived_from"]) is None:
        return "trained from scratch by `edgesod train`"
    return f"a variant of [{whole}](../{whole}/README.md) of this project's own and not a published network"


def _training(card: dict[str, Any]) -> str:
    training, made_of = card["training"], card["made_of"]
    note = f" {training['note']}" if training["note"] else ""
    if made_of is not None:
        weights = f"`{made_of['file']}` (SHA-256 `{made_of['sha256'][:12]}…`)"
        return f"none of its own. These are the weights of {weights}, as `trainer.networks.load_weights` puts them into this network.{note}"
    seen = [f"{run['images_seen']:,}" for run in training["runs"]]
    hours = f"about {training['hours']:.1f} hours" if training["hours"] else "for as long as was not logged,"
    teacher = training["last_recipe"].get("teacher")
    taught = f" Its teacher was {teacher['network']}." if teacher else ""
    runs = f"{training['images_seen']:,} images seen"
    if len(seen) > 1:
        runs += f" in {len(seen)} runs ({', '.join(seen)})"
    return f"{runs}, {hours} on {training['hardware']}.{taught}{note}"


def _history(card: dict[str, Any]) -> list[str]:
    """Return the section on the hold-out's scores along the training, nothing for weights that came without one."""
    if card["made_of"] is not None:
        return []
    return [
        "## Hold-out over images seen",
        "",
        f"Averaged weights, about {card['training']['last_recipe']['validate_images']} of the held-out images, at the size trained "
        f"at, not stretched. {_trend(card['hold_out'])}",
        "",
        "![Hold-out score over images seen](curve.svg)",
        "",
        "| images seen | size | max-F | MAE |",
        "|---|---|---|---|",
        *(f"| {v['seen']:,} | {v['validation_size']} | {v['max_f']:.3f} | {v['mae']:.3f} |" for v in card["hold_out"]),
        "",
    ]


def _score_table(card: dict[str, Any]) -> list[str]:
    rows = {
        "max_f": "max-F (of mean precision and recall)",
        "mae": "MAE",
        "max_f_mean": "maximum of the mean F curve",
        "weighted_f": "weighted F",
        "s_measure": "S-measure",
    }
    scores, whole = card["scores"], card["derived_from"]
    if whole is None:
        beside, others = "the paper's on SOD", published_scores(card["name"], "SOD")
    else:
        beside, others = f"{whole}'s on SOD", zoo.shipped(whole).card["scores"].get("SOD", {})
    headings = [f"{_name(card, key)}, {found['n']:.0f} images" for key, found in scores.items()]
    lines = [f"| score | {' | '.join(headings)} | {beside} |", f"|---{'|---' * (len(headings) + 1)}|"]
    for key, name in rows.items():
        cells = [f"{found[key]:.3f}" for found in scores.values()]
        lines.append(f"| {name} | {' | '.join(cells)} | {f'{others[key]:.3f}' if key in others else '–'} |")
    return lines


def _trend(validations: Sequence[dict[str, float]]) -> str:
    """Say whether the score still rises: what the last third of the images gained."""
    if len(validations) < 3:
        return "Too few validations to say whether it still rises."
    last = validations[-1]
    before = [v for v in validations if v["seen"] <= 2 / 3 * last["seen"]] or validations[:1]
    gain, less = last["max_f"] - before[-1]["max_f"], before[-1]["mae"] - last["mae"]
    verdict = "it was still rising" if gain > _STILL_RISING else "it had levelled off"
    return (
        f"Over the last {last['seen'] - before[-1]['seen']:,} images max-F changed by {gain:+.3f} and MAE by {-less:+.3f}: {verdict}. "
        "Sizes and rates differ along the way, so a step up may be theirs."
    )


def _photograph(name: str) -> np.ndarray:
    from skimage import data

    image = getattr(data, name)()
    return np.ascontiguousarray(image[:, :, ::-1]) if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)


def _shrunk(grey: np.ndarray) -> np.ndarray:
    scale = min(1.0, *(side / own for side, own in zip(_CELL_WH, grey.shape[::-1], strict=True)))
    size_wh = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    return np.asarray(cv2.resize(grey, size_wh, interpolation=cv2.INTER_AREA))
