"""What ``edgesod eval`` scores and ``edgesod compare`` sets side by side: folders of maps and runtimes, each under a name of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgesod.cli._runtime import open_runtime
from edgesod.cli._source import recipe_and_onnx
from edgesod.errors import UsageError
from edgesod.evaluation import EvaluationSet, SodScorer, accumulate_folder, accumulate_predictions, name_of
from edgesod.evaluation.pairs import find_masks
from edgesod.recipe import Precision
from edgesod.runtime import Runtime, open_session

OnProgress = Callable[[int, int | None], None]


@dataclass
class Subject:
    """One thing that gives a saliency map for every image of a set.

    Attributes:
        label: Name in tables, curves and sheets.
        source: A folder of maps, or what opens a runtime.
        model: The network, by the name the published tables know; known once the subject was scored.
        shown: Stem → map as scored, uint8 or float ``(H, W)``, of the images that :meth:`score` was asked to keep.
    """

    label: str
    source: Path | Callable[[], AbstractContextManager[Runtime]]
    model: str
    shown: dict[str, NDArray[np.uint8] | NDArray[np.float32]] = field(default_factory=dict)

    def score(
        self,
        data: Sequence[Path],
        keep: Sequence[str],
        *,
        stems: Sequence[str] | None,
        stretch: bool,
        jobs: int | None,
        on_progress: OnProgress,
    ) -> SodScorer:
        """Score the subject on a set, which may come in several parts, or on some stems of it; keep the maps of some."""
        if isinstance(self.source, Path):
            scorer = accumulate_folder(self.source, data, stems=stems, stretch=stretch, jobs=jobs, on_progress=on_progress)
            maps = find_masks(self.source) if keep else {}
            self.shown = {stem: maps[stem].read_grey() for stem in keep}
            return scorer
        pairs = EvaluationSet(*data)
        stems = pairs.stems if stems is None else stems
        with self.source() as runtime:
            self.model = runtime.recipe.model
            predictions = self._predict(runtime, pairs, stems, set(keep))
            return accumulate_predictions(predictions, stretch=stretch, on_scored=lambda done: on_progress(done, len(stems)))

    def _predict(
        self, runtime: Runtime, pairs: EvaluationSet, stems: Sequence[str], keep: set[str]
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
        for stem in stems:
            image, truth = pairs.read(stem)
            saliency = runtime(image).saliency
            if stem in keep:
                self.shown[stem] = saliency
            yield saliency, truth


def collect_subjects(
    *,
    maps: Sequence[Path],
    engines: Sequence[Path],
    onnx: Sequence[Path],
    weights: Sequence[Path],
    model: str | None,
    precision: Precision | None,
    size: int | None,
    backend: str,
    threads: int | None,
    recipe_file: Path | None = None,
) -> list[Subject]:
    """Return what was named on the command line, in the order of its options.

    Raises:
        UsageError: Nothing was named, or a precision, a size or a recipe goes with something that has its own.
    """
    if size is not None and not weights:
        raise UsageError("--size goes with --weights: all else has its own", hint=f"leave out --size {size}")
    if recipe_file is not None and not (onnx or weights):
        raise UsageError(
            "--recipe goes with --onnx or --weights: all else has its own", hint=f"leave out --recipe {recipe_file}"
        )
    found = [Subject(name_of(path), path, name_of(path)) for path in maps]
    for path in engines:
        found.append(Subject(name_of(path), partial(open_runtime, path, None, None, backend, threads), ""))
    for path in onnx:
        found.append(
            Subject(path.stem, partial(open_file, model, None, backend, threads, onnx=path, recipe_file=recipe_file), "")
        )
    for path in weights:
        found.append(
            Subject(path.stem, partial(open_file, model, size, backend, threads, weights=path, recipe_file=recipe_file), "")
        )
    if model is not None and not (onnx or weights):
        label = f"{model} {precision or 'int8'}"
        found.append(Subject(label, partial(open_runtime, None, model, precision, backend, threads), ""))
    elif precision not in (None, "fp32"):
        raise UsageError(
            f"weights and ONNX files are scored in FP32, engines and maps have their own, not {precision}",
            hint="build an engine, then eval --engine DIR",
        )
    if not found:
        raise UsageError(
            "nothing to score: --maps, --engine, --onnx, --weights or --model, each as often as you like but --model",
            hint="edgesod eval --data SOD --model u2netp --fp32",
        )
    distinguish_labels(found)
    return found


@contextmanager
def open_file(
    model: str | None,
    size: int | None,
    backend: str,
    threads: int | None,
    *,
    onnx: Path | None = None,
    weights: Path | None = None,
    recipe_file: Path | None = None,
    precision: Precision = "fp32",
) -> Iterator[Runtime]:
    """Yield the runtime of an ONNX file, or of weights by way of one; ``precision`` is what the ONNX was written for."""
    source = recipe_and_onnx(model=model, precision=precision, recipe_file=recipe_file, weights=weights, onnx=onnx, size=size)
    with source as (recipe, path):
        with Runtime.from_session(open_session(path, precision, backend, threads), recipe) as runtime:
            yield runtime


def distinguish_labels(subjects: list[Subject]) -> None:
    """Number the labels of subjects that share one."""
    labels = [subject.label for subject in subjects]
    for k, subject in enumerate(subjects):
        if labels.count(subject.label) > 1:
            subject.label = f"{labels[k]} ({labels[: k + 1].count(labels[k])})"
