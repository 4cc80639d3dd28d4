"""The training loop, top to bottom: set up, resume, step, validate, save."""

from __future__ import annotations

import hashlib
import logging
import math
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import FrameType

import torch

from edgesod.evaluation.pairs import EvaluationSet, hold_out

from .batches import batches_of
from .checkpoint import checkpoints, clear_leftovers, keep_best, read_record
from .devices import make_fabric
from .learner import Learner, require_size
from .log import RunLog
from .recipe import Stage, TrainingRecipe
from .schedule import learning_rate
from .validation import validate

log = logging.getLogger("edgesod.trainer")


@dataclass(frozen=True)
class Progress:
    """What a caller is told while training runs.

    Attributes:
        seen: Images seen so far.
        images: Images of the whole run.
        images_per_s: Throughput since the start or resume, or since the stage began.
        loss: Total loss of the last step.
        scores: Hold-out scores, at a validation only.
    """

    seen: int
    images: int
    images_per_s: float
    loss: float
    scores: dict[str, float] | None = None


class Trainer:
    """One training run in one folder.

    Under ``torchrun`` each process makes one, and they share every step: see ``docs/training.md``.

    Args:
        recipe: What to do.
        data: Folders or tars of the training set; every 20th stem is held out for validation.
        out: The run's folder: checkpoints, ``log.jsonl`` and TensorBoard's files. Where it holds a checkpoint, the run goes
            on from there and the next two arguments are not looked at.
        start_from: Checkpoint folder of another run to take weights, averages and optimiser state from, or a file of
            weights alone.
        backbone: File of ImageNet weights, see :func:`trainer.networks.load_backbone`.
        workers: Processes that decode and augment ahead of the step.
        on_progress: Called after every step and at each validation, in the first process alone.

    Attributes:
        seen: Images seen so far.
        is_first: Whether this process is the one that writes and tells.
        is_interrupted: Whether a signal ended the run.
        learner: The network and what belongs to it.
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        data: Sequence[str],
        out: Path,
        *,
        start_from: Path | None = None,
        backbone: Path | None = None,
        workers: int = 1,
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self.recipe, self.out, self.workers, self.on_progress = recipe, out, workers, on_progress
        self.source = EvaluationSet(*data)
        self.stems, held = hold_out(self.source.stems)
        self.held = held[:: max(1, len(held) // recipe.validate_images)]
        digest = hashlib.sha256("\n".join(sorted(self.source.stems)).encode()).hexdigest()
        self.seen, self._owes_validation = 0, False
        self._wants_to_stop = self.is_interrupted = False
        self.fabric = make_fabric(recipe.precision)
        self.is_first = self.fabric.is_global_zero
        self._about = {"data": {"pairs": len(self.source), "sha256": digest}, "processes": self.fabric.world_size}
        self.learner = Learner(recipe, self.fabric)
        if (rescale := recipe.augmentation.rescale) is not None:
            require_size(recipe.network, rescale, recipe.stages[0].batch, "rescale")  # the hold-out is scored at it
        whole = checkpoints(out)
        if whole:
            self.seen = self.learner.load(whole[-1])
            self._tell_changes(whole[-1])
            self._owes_validation = read_record(whole[-1]).get("owes_validation", False)
        else:
            if start_from is not None and start_from.is_dir():
                self.learner.load(start_from)
            elif start_from is not None:
                self.learner.load_weights(start_from)
            if backbone is not None:
                self.learner.load_backbone(backbone)
        self.learner.start()

    def run(self) -> None:
        """Train to the recipe's end, or until SIGINT or SIGTERM, which save and return."""
        previous = {s: signal.signal(s, self._stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            with ExitStack() as stack:
                self._log = self._open_run(stack)
                if self._owes_validation:
                    self._validate(self.recipe.stage_at(self.seen - 1)[0])
                    self._agree_on_stopping()
                while self.seen < self.recipe.images and not self.is_interrupted:
                    self._run_stage()
                self._save()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _open_run(self, stack: ExitStack) -> RunLog | None:
        if not self.is_first:
            return None
        opened = stack.enter_context(RunLog(self.out, self.seen))
        clear_leftovers(self.out)
        return opened

    def _run_stage(self) -> None:
        stage, into = self.recipe.stage_at(self.seen)
        end = self.seen - into + stage.images
        per_step = stage.batch * stage.accumulate * self.fabric.world_size
        started, seen_at_start = time.perf_counter(), self.seen
        batches = batches_of(self.recipe, stage, self.source, self.stems, self.fabric, seen=self.seen, workers=self.workers)
        with closing(batches):  # ends the workers, also when a step fails
            while step := list(islice(batches, stage.accumulate)):
                rate = learning_rate(self.recipe, self.seen)
                loss = self.learner.step(step, rate, self.seen)
                before, self.seen = self.seen, self.seen + per_step
                speed = (self.seen - seen_at_start) / (time.perf_counter() - started)
                self._tell(Progress(self.seen, self.recipe.images, speed, float(loss.total)))
                if self._log and _crossed(before, self.seen, self.recipe.log_every * per_step):
                    self._log.step(self.seen, loss, rate, speed)
                # before saving: a run killed in between goes on from the checkpoint and would never validate here
                if _crossed(before, self.seen, self.recipe.validate_every) or self.seen >= self.recipe.images:
                    self._validate(stage, speed, float(loss.total))
                if _crossed(before, self.seen, self.recipe.checkpoint_every):
                    self._save()
                self._agree_on_stopping()
                if self.is_interrupted or self.seen >= end:
                    return

    def _validate(self, stage: Stage, speed: float = 0.0, loss: float = math.nan) -> None:
        """Score the hold-out, unless a signal comes; what is broken off is made up for when the run goes on."""
        if self._log is None:
            return
        size, ema = self.recipe.validation_size(stage), self.learner.ema.module
        how = self.learner.about.preprocessing
        scores = validate(ema, self.source, self.held, size, how, lambda: self._wants_to_stop)
        self._owes_validation = scores is None
        if scores is None:
            return
        self._log.scores(self.seen, size, scores)
        keep_best(self.out, ema, {"images_seen": self.seen, "size": size, "scores": scores}, self.learner.about)
        self._tell(Progress(self.seen, self.recipe.images, speed, loss, scores))

    def _tell_changes(self, folder: Path) -> None:
        record = read_record(folder)
        saved, ours = record["recipe"], self.recipe.model_dump(mode="json")
        changed = [name for name in ours if name in saved and saved[name] != ours[name]]
        if changed and self.is_first:
            log.warning("%s was trained by another recipe; from here on this one's counts: %s", folder, ", ".join(changed))
        theirs = record.get("data", self._about["data"])
        if theirs != self._about["data"] and self.is_first:
            log.warning(
                "%s was trained on other pictures (%s pairs, here are %s): it may have seen what is held out here",
                *(folder, theirs["pairs"], len(self.source)),
            )
        if (processes := record.get("processes", self.fabric.world_size)) != self.fabric.world_size and self.is_first:
            log.warning(
                "%s was trained by %s processes: with %s pictures come in another order",
                folder,
                processes,
                self.fabric.world_size,
            )

    def _tell(self, progress: Progress) -> None:
        if self.is_first:
            self.on_progress(progress)

    def _save(self) -> None:
        if self.is_first:
            self.learner.save(self.out, self.seen, self._about | {"owes_validation": self._owes_validation})

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._wants_to_stop = True

    def _agree_on_stopping(self) -> None:
        # a signal reaches each process at another moment; one that stopped a step before the others would leave them waiting
        wants = torch.tensor(float(self._wants_to_stop), device=self.fabric.device)
        self.is_interrupted = bool(self.fabric.all_reduce(wants, reduce_op="sum"))


def _crossed(before: int, after: int, every: int) -> bool:
    return before // every != after // every
