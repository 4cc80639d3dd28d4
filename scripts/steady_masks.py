"""Measure what steadies masks: a virtual camera moves over pictures together with their masks, so that the truth is known.

    python scripts/steady_masks.py --data SOD --model u2netp --json steady.json --document docs/live.md

Each picture becomes a short clip: the camera pans, zooms and turns a little, then rests, and its noise and exposure change from
frame to frame. The network runs on every frame once; then each filter gets its maps as a stream would. Reported per filter:

- change: mean absolute difference, in thousandths, between a frame's map and the map of the frame before moved along with the
  camera, while it moves and while it rests, and of the masks alike: with the camera's own motion taken out, that is flicker;
- MAE and max-F against each frame's own mask, maps not stretched;
- lag: the number of frames by which the truth has to be delayed to fit the maps best, by the squared difference while the camera
  moves, between frames by a parabola;
- network: share of the frames it ran on; ms: what the filter takes per frame besides, in this thread's CPU time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from documents import at_least_one, replace_between, run, say

from edgesod.evaluation import EvaluationSet, SodScorer, evenly_spread, name_of
from edgesod.files import write_atomically
from edgesod.processing.steady import Steady, SteadySettings, parse_steady
from edgesod.runtime import Runtime
from edgesod.types import Frame, Result

BEGIN, END = "<!-- steady masks: written by scripts/steady_masks.py -->", "<!-- end of steady masks -->"

FILTERS = (
    "",
    "smooth=0.5",
    "motion=0.3",
    "flow=0.3",
    "hysteresis=0.1",
    "area=0.002",
    "holes=0.005",
    "refine",
    "feather=2",
    "every=2",
    "every=2,flow=0.3",
    "every=4",
    "every=4,flow=0.3",
    "similar=40",
    "flow,area,holes",
    "flow,hysteresis,area,holes,refine",
)

VIEW_WH = (480, 360)
NOISE, EXPOSURE = 3.0, 0.015  # standard deviations: grey levels of a pixel, share of a frame's brightness
THRESHOLD = 0.5
RESTS_FROM = 0.6  # of the clip
LAGS = range(-2, 5)


def main() -> None:
    """Measure every filter and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="set of pictures and masks, such as SOD; several for its parts"
    )
    parser.add_argument("--model", default="u2netp", help="a shipped model, or an engine folder")
    parser.add_argument("--precision", default=None)
    parser.add_argument("--pictures", type=at_least_one, default=12, help="so many, spread over the set")
    parser.add_argument("--frames", type=at_least_one, default=20, help="per picture")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--filters", nargs="+", default=FILTERS, help="settings as --steady takes them; an empty one is none")
    parser.add_argument("--threads", type=at_least_one, default=None)
    parser.add_argument("--json", type=Path, default=None, help="where the numbers go")
    parser.add_argument("--document", type=Path, default=None, help="document whose table is written anew")
    options = parser.parse_args()

    pairs = EvaluationSet(*options.data)
    stems = evenly_spread(pairs.stems, options.pictures)
    scores = {text: Scores() for text in options.filters}
    truth_change = [Mean(), Mean()]
    with Runtime(options.model, options.precision, threads=options.threads) as runtime:
        for k, stem in enumerate(stems):
            say(f"[{k + 1}/{len(stems)}] {stem}")
            clip = list(film(*pairs.read(stem), options.frames, np.random.default_rng([options.seed, k])))
            maps = [runtime(view.image).map_hw for view in clip]
            for text, score in scores.items():
                score.add(clip, *steadied(clip, maps, text))
            add_changes(truth_change, clip, [view.truth for view in clip])
        done = {
            "set": name_of(options.data),
            "pictures": len(stems),
            "frames": options.frames,
            "seed": options.seed,
            "model": runtime.recipe.name,
            "backend": runtime.backend,
            "truth_change": [mean.value for mean in truth_change],
            "filters": {text: score.as_dict() for text, score in scores.items()},
        }
    lines = table(done)
    print("\n".join(lines))
    if options.json:
        write_atomically(options.json, json.dumps(done, indent=1).encode())
    if options.document:
        replace_between(options.document, BEGIN, END, lines)


@dataclass(frozen=True)
class View:
    """What the camera sees: frame, truth in [0, 1] at its size, the picture's pixels → the view's (2×3), whether it moves."""

    image: np.ndarray
    truth: np.ndarray
    matrix: np.ndarray
    moves: bool


def film(picture: np.ndarray, mask: np.ndarray, num_frames: int, rng: np.random.Generator) -> Iterator[View]:
    """Move a camera from one window of a picture to another, then rest; the same seed gives the same clip."""
    height, width = picture.shape[:2]
    start, end = (
        np.array([*rng.uniform(0.42, 0.58, 2), rng.uniform(0.7, 0.9), rng.uniform(-5, 5)]) for _ in range(2)
    )  # centre as shares of the picture, width of the window as a share, degrees
    for k in range(num_frames):
        t = min(k / (RESTS_FROM * num_frames), 1.0)
        x, y, share, degrees = start + (end - start) * t * t * (3 - 2 * t)  # starts and ends gently
        scale = max(VIEW_WH[0] / (share * width), VIEW_WH[1] / (share * height))
        matrix = cv2.getRotationMatrix2D((x * width, y * height), degrees, scale)
        matrix[:, 2] += (VIEW_WH[0] / 2 - x * width, VIEW_WH[1] / 2 - y * height)
        view, truth = (cv2.warpAffine(p, matrix, VIEW_WH, borderMode=cv2.BORDER_REFLECT_101) for p in (picture, mask))
        noisy = view * (1 + rng.normal(0, EXPOSURE)) + rng.normal(0, NOISE, view.shape)
        image = np.clip(np.round(noisy), 0, 255).astype(np.uint8)
        yield View(image, truth.astype(np.float32) / 255, matrix, t < 1)


def steadied(clip: Sequence[View], maps: Sequence[np.ndarray], text: str) -> tuple[list[np.ndarray], int, float]:
    """Return the maps at view size as a filter shows them, how often it asked for the network's, and its seconds of CPU."""
    steady = Steady(parse_steady(text) if text else SteadySettings())
    shown, asked = [], 0
    began_s = time.thread_time()
    for k, view in enumerate(clip):

        def infer(image: np.ndarray, k: int = k) -> Result:
            nonlocal asked
            asked += 1
            return Result(maps[k], image.shape[:2])

        shown.append(steady(Frame(view.image, index=k), infer))
    seconds = time.thread_time() - began_s
    return [result.saliency for result in shown], asked, seconds


class Mean:
    """A mean of what was added."""

    def __init__(self) -> None:
        self._sum, self._num = 0.0, 0

    def add(self, value: float) -> None:
        self._sum, self._num = self._sum + value, self._num + 1

    @property
    def value(self) -> float:
        return self._sum / max(self._num, 1)


class Scores:
    """What one filter makes of all clips."""

    def __init__(self) -> None:
        self._sod = SodScorer()
        self._map_change, self._mask_change = [Mean(), Mean()], [Mean(), Mean()]  # while the camera moves, while it rests
        self._by_lag = {lag: Mean() for lag in LAGS}
        self._frames = self._asked = 0
        self._seconds = 0.0

    def add(self, clip: Sequence[View], shown: Sequence[np.ndarray], asked: int, seconds: float) -> None:
        """Add a clip and its maps at view size."""
        self._frames, self._asked, self._seconds = self._frames + len(clip), self._asked + asked, self._seconds + seconds
        for view, saliency in zip(clip, shown, strict=True):
            self._sod.add(saliency, np.where(view.truth > 0.5, 255, 0).astype(np.uint8))
        add_changes(self._map_change, clip, shown)
        add_changes(self._mask_change, clip, [(saliency >= THRESHOLD).astype(np.float32) for saliency in shown])
        # the same frames at every lag, or the easy ones would decide
        for k in range(max(LAGS), len(clip) + min(LAGS)):
            if clip[k].moves:
                for lag, mean in self._by_lag.items():
                    mean.add(float(np.square(shown[k] - clip[k - lag].truth).mean()))

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers, ready for JSON."""
        sod = self._sod.scores()
        return {
            "map_change": {"moving": self._map_change[0].value, "resting": self._map_change[1].value},
            "mask_change": {"moving": self._mask_change[0].value, "resting": self._mask_change[1].value},
            "mae": sod["mae"],
            "max_f": sod["max_f"],
            "lag": best_lag({lag: mean.value for lag, mean in self._by_lag.items()}),
            "network": self._asked / self._frames,
            "ms": self._seconds / self._frames * 1e3,
        }


def add_changes(means: Sequence[Mean], clip: Sequence[View], maps: Sequence[np.ndarray]) -> None:
    """Add the change from frame to frame, the camera's motion taken out, to the mean for moving or for resting."""
    for k in range(1, len(clip)):
        step = homogeneous(clip[k].matrix) @ np.linalg.inv(homogeneous(clip[k - 1].matrix))
        moved = cv2.warpAffine(maps[k - 1], step[:2], VIEW_WH)
        seen = cv2.warpAffine(np.ones_like(maps[k - 1]), step[:2], VIEW_WH) > 0.999
        means[0 if clip[k].moves else 1].add(float(np.abs(maps[k] - moved)[seen].mean()))


def best_lag(errors: dict[int, float]) -> float:
    """Return the lag of the least error, between whole ones by a parabola through it and its neighbours."""
    best = min(list(errors)[1:-1], key=errors.__getitem__)
    before, here, after = (errors[best + step] for step in (-1, 0, 1))
    bend = before - 2 * here + after
    return best + (before - after) / (2 * bend) if bend > 0 else float(best)


def homogeneous(matrix: np.ndarray) -> np.ndarray:
    """Return a 2×3 affine matrix as 3×3."""
    return np.vstack([matrix, [0, 0, 1]])


def table(done: dict[str, Any]) -> list[str]:
    """Return the numbers as Markdown."""
    moving, resting = (1e3 * value for value in done["truth_change"])
    lines = [
        f"{done['pictures']} pictures of {done['set']}, {done['frames']} frames of {VIEW_WH[0]}×{VIEW_WH[1]} each, "
        f"{done['model']} in {done['backend']}. The truth itself changes by {moving:.1f} ‰ moving and {resting:.1f} ‰ resting, "
        "by interpolation alone.",
        "",
        "| `--steady` | map change, ‰: moving · resting | mask change, ‰: moving · resting | MAE | max-F | lag, frames | network | ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for text, row in done["filters"].items():
        map_change, mask_change = (
            f"{1e3 * row[what]['moving']:.1f} · {1e3 * row[what]['resting']:.1f}" for what in ("map_change", "mask_change")
        )
        lines.append(
            f"| {f'`{text}`' if text else '(nothing)'} | {map_change} | {mask_change} | {row['mae']:.4f} | {row['max_f']:.4f} | "
            f"{row['lag']:+.2f} | {row['network']:.0%} | {row['ms']:.1f} |"
        )
    return lines


if __name__ == "__main__":
    run(main)
