"""The gate: run an engine and FP32 on the same real images, and refuse the engine that drifts."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.errors import CheckFailed, InputError
from edgesod.evaluation.metrics import SodScorer
from edgesod.evaluation.pairs import EvaluationSet, Places, name_of, places_of
from edgesod.manifest import GateReport
from edgesod.processing.pictures import PHOTOGRAPHS, list_pictures, photograph, read_picture
from edgesod.processing.resize import resize_image
from edgesod.recipe import Precision, Recipe
from edgesod.runtime import Runtime
from edgesod.timing import interleaved, round_ratios
from edgesod.types import Mask

_REMEDY = "calibrate on images like the ones it will see (--calib DIR), or keep layers in float (quantisation.float_nodes)"
_REMEDIES: dict[Precision, str] = {
    "fp32": "nothing was rounded, so the backend is at fault: take another (--backend)",
    "bf16": "bf16 keeps two to three digits: build --fp32, or --int8",
}


class GateSet:
    """The images a gate uses, with ground truth where there is some.

    Args:
        places: Folder of pictures, or a set, folder or tar, as :class:`~edgesod.evaluation.pairs.EvaluationSet` reads it, or
            several that hold parts of one; ``None`` or none for scikit-image's photographs.

    Raises:
        InputError: There is neither a picture right in each folder nor a set.

    Iterating yields ``(image, mask)``: uint8 BGR ``(H, W, 3)`` and uint8 ``(H, W)`` or ``None``.
    """

    def __init__(self, places: Places | None) -> None:
        self._pairs: EvaluationSet | None = None
        self._files: list[Path] = []
        if not (paths := places_of(places or ())):
            self.description = "photographs of scikit-image"
            return
        for path in paths:
            if not (path.is_dir() or (path.is_file() and path.suffix == ".tar")):
                raise InputError(
                    f"there is no folder of images at {path}",
                    hint="name a folder of pictures, or one that holds images/ and masks/",
                )
        if any(path.is_file() or ((path / "images").is_dir() and (path / "masks").is_dir()) for path in paths):
            self._pairs = EvaluationSet(*paths)
        else:
            self._files, self._pairs = _pictures_or_set(paths)
        self.description = f"{name_of(paths)}, {'with' if self._pairs else 'without'} ground truth"

    def __len__(self) -> int:
        if self._pairs is not None:
            return len(self._pairs)
        return len(self._files) or len(PHOTOGRAPHS)

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], Mask | None]]:
        if self._pairs is not None:
            for _, image, mask in self._pairs:
                yield image, mask
        elif self._files:
            for file in self._files:
                yield read_picture(file), None
        else:
            for name in PHOTOGRAPHS:
                yield photograph(name), None


def _pictures_or_set(folders: list[Path]) -> tuple[list[Path], EvaluationSet | None]:
    """Return the pictures right in folders; where one has none, the set that is laid out below them."""
    try:
        return [picture for folder in folders for picture in list_pictures(folder)], None
    except InputError as no_picture:
        try:
            return [], EvaluationSet(*folders)
        except InputError as no_set:
            raise InputError(f"{no_picture}, and no set: {no_set}", hint=no_picture.hint) from None


def measure(
    engine: Runtime,
    reference: Runtime,
    images: GateSet,
    on_progress: Callable[[int, int | None], None] = lambda _done, _total: None,
) -> GateReport:
    """Compare an engine with FP32 on ``images``, accuracy first, then speed in interleaved rounds.

    Raises:
        CheckFailed: The engine gave a value that is not finite.
    """
    differences, ious = [], []
    ours, theirs = SodScorer(), SodScorer()
    sample: NDArray[np.uint8] | None = None
    frame_hw = engine.recipe.frame_hw
    for k, (image, truth) in enumerate(stretched(images, frame_hw) if frame_hw is not None else images):
        sample = image if sample is None else sample
        got, want = engine(image), reference(image)
        differences.append(float(np.abs(got.map_hw - want.map_hw).mean()))
        ious.append(mask_iou(got.mask, want.mask))
        if truth is not None:
            ours.add(got.saliency, truth)
            theirs.add(want.saliency, truth)
        on_progress(k + 1, len(images))
    assert sample is not None  # a GateSet is never empty
    accuracy: dict[str, float | None] = {}
    if ours.n:
        a, b = ours.scores(), theirs.scores()
        accuracy = {
            "mae": a["mae"],
            "mae_drift": abs(a["mae"] - b["mae"]),
            "max_f": a["max_f"],
            "max_f_drift": abs(a["max_f"] - b["max_f"]),
        }
    latency, fp32_latency, speedup = _time_interleaved(engine, reference, sample)
    slower = engine.precision != "fp32" and speedup < 1
    return GateReport(
        images=images.description + (f", stretched to {frame_hw[1]}×{frame_hw[0]}" if frame_hw is not None else ""),
        n=len(differences),
        map_mae=statistics.fmean(differences),
        mask_iou=statistics.fmean(ious),
        **accuracy,
        latency_ms=latency,
        fp32_latency_ms=fp32_latency,
        speedup=speedup,
        warnings=(
            f"{engine.precision} is slower than ONNX Runtime FP32 here: {latency:.1f} against {fp32_latency:.1f} ms a frame",
        )
        if slower
        else (),
    )


def verdict(report: GateReport, recipe: Recipe) -> None:
    """Raise :class:`~edgesod.errors.CheckFailed`, naming every bound that a report breaks."""
    bounds = recipe.gate
    measured = (
        ("maps differ by", report.map_mae, bounds.map_mae),
        ("MAE drifts by", report.mae_drift, bounds.mae_drift),
        ("max-F drifts by", report.max_f_drift, bounds.max_f_drift),
    )
    broken = [f"{what} {value:.4f} (bound {bound:g})" for what, value, bound in measured if value is not None and value > bound]
    if broken:
        raise CheckFailed(
            f"{recipe.name} is not faithful to FP32 on {report.n} images: {', '.join(broken)}; masks agree to IoU {report.mask_iou:.3f}",
            hint=_REMEDIES.get(recipe.precision, _REMEDY),
        )


def stretched(images: GateSet, size_hw: tuple[int, int]) -> Iterator[tuple[NDArray[np.uint8], Mask | None]]:
    """Yield the images at the one size that an engine takes."""
    height, width = size_hw
    for image, truth in images:
        if truth is not None:
            truth = np.asarray(cv2.resize(truth, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)
        yield resize_image(image, size_hw, "linear"), truth


def mask_iou(a: Mask, b: Mask) -> float:
    """Return intersection over union of two masks; 1 where both are empty."""
    union = int(((a > 0) | (b > 0)).sum())
    return float(((a > 0) & (b > 0)).sum() / union) if union else 1.0


def _time_interleaved(engine: Runtime, reference: Runtime, image: NDArray[np.uint8]) -> tuple[float, float, float]:
    """Return the median ms of both and the median over rounds of reference ÷ engine, each round's best run counting."""

    def run(runtime: Runtime) -> tuple[float]:
        times = runtime(image).times_ms
        return (times["preprocess"] + times["inference"],)  # an engine that takes frames does the one as part of the other

    found = interleaved([partial(run, engine), partial(run, reference)])
    ours, theirs = ([ms for (ms,) in own] for own in found)
    ratio = statistics.median(round_ratios(theirs, ours))
    return round(statistics.median(ours), 3), round(statistics.median(theirs), 3), round(ratio, 3)
