"""The training loop, top to bottom: set up, resume, step, validate, save."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from edgesod.errors import CheckFailed, InputError
from edgesod.evaluation.pairs import EvaluationSet
from trainer import networks
from trainer.data.loader import ResumableOrder, TrainingSet, make_loader, normalise_batch
from trainer.data.split import hold_out
from trainer.data.transforms import Augmentation
from trainer.losses import DeepSupervision, LossParts

from .checkpoint import checkpoints, clear_leftovers, load_checkpoint, save_checkpoint
from .ema import Ema
from .recipe import Stage, TrainingRecipe
from .schedule import learning_rate
from .validation import validate

_FABRIC_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
_LOG_EVERY = 25


@dataclass(frozen=True)
class Progress:
    """What a caller is told while training runs.

    Attributes:
        seen: Images seen so far.
        images: Images of the whole run.
        images_per_s: Throughput since the start or resume.
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

    Args:
        recipe: What to do.
        data: Folders or tars of the training set; every 20th stem is held out for validation.
        out: The run's folder: checkpoints and ``log.jsonl``.
        start_from: Checkpoint folder of another run to take weights, averages and optimiser state from.
        workers: Processes that decode and augment ahead of the step.
        on_progress: Called every 25 steps and at each validation.

    Attributes:
        seen: Images seen so far.
        is_interrupted: Whether a signal ended the run.
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        data: Sequence[str],
        out: Path,
        *,
        start_from: Path | None = None,
        workers: int = 1,
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self.recipe, self.out, self.workers, self.on_progress = recipe, out, workers, on_progress
        self.fabric = Fabric(precision=_FABRIC_PRECISION[recipe.precision])  # type: ignore[arg-type]
        self.source = EvaluationSet(*data)
        self.stems, held = hold_out(self.source.stems)
        self.held = held[:: max(1, len(held) // recipe.validate_images)]
        self.seen = 0
        self.is_interrupted = False
        self._set_up_model(start_from)

    def _set_up_model(self, start_from: Path | None) -> None:
        torch.manual_seed(self.recipe.seed)
        model = networks.create(self.recipe.network).to(memory_format=torch.channels_last)
        self.ema = Ema(model, self.recipe.ema_decay)
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.recipe.optimizer]
        optimizer = kind(model.parameters(), lr=1.0, weight_decay=self.recipe.weight_decay)
        self.out.mkdir(parents=True, exist_ok=True)
        clear_leftovers(self.out)
        self.module = model
        self.optimizer = optimizer
        whole = checkpoints(self.out)
        if whole:
            record = load_checkpoint(whole[-1], model, self.ema, optimizer)
            if record["recipe"]["network"] != self.recipe.network:
                raise InputError(f"{self.out} holds a run of {record['recipe']['network']}", hint="choose another --out")
            self.seen = record["images_seen"]
        elif start_from is not None:
            load_checkpoint(start_from, model, self.ema, optimizer)
        self.ema.module.to(self.fabric.device)
        self.model, self.optimizer = self.fabric.setup(model, optimizer)

    def run(self) -> None:
        """Train to the recipe's end, or until SIGINT or SIGTERM, which save and return."""
        previous = {s: signal.signal(s, self._stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            while self.seen < self.recipe.images and not self.is_interrupted:
                self._run_stage()
            self._save()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _run_stage(self) -> None:
        stage, into = self.recipe.stage_at(self.seen)
        end = self.seen - into + stage.images
        loss_of = DeepSupervision(self.recipe.loss, self.recipe.output_weights)
        started, seen_at_start = time.perf_counter(), self.seen
        for images, masks, stems in self._batches(stage):
            rate = learning_rate(self.recipe, self.seen)
            loss = self._step(images, masks, stems, rate, loss_of)
            before, self.seen = self.seen, self.seen + stage.batch * self.fabric.world_size
            speed = (self.seen - seen_at_start) / (time.perf_counter() - started)
            if _crossed(before, self.seen, _LOG_EVERY * stage.batch):
                self._log(loss, rate, speed)
                self.on_progress(Progress(self.seen, self.recipe.images, speed, float(loss.total.detach())))
            if _crossed(before, self.seen, self.recipe.checkpoint_every):
                self._save()
            if _crossed(before, self.seen, self.recipe.validate_every) or self.seen >= self.recipe.images:
                self._validate(stage.size, speed, float(loss.total.detach()))
            if self.is_interrupted or self.seen >= end:
                return

    def _batches(self, stage: Stage) -> Iterator[tuple[Tensor, Tensor, list[str]]]:
        augmentation = Augmentation(**self.recipe.augmentation.model_dump())
        dataset = TrainingSet(self.source, self.stems, stage.size, augmentation, self.recipe.seed)
        order = ResumableOrder(
            len(self.stems), stage.batch, self.recipe.seed, self.seen, self.fabric.global_rank, self.fabric.world_size
        )
        for images, masks, stems in make_loader(dataset, order, self.workers):
            yield images.to(self.fabric.device), masks.to(self.fabric.device), stems

    def _step(self, images: Tensor, masks: Tensor, stems: list[str], rate: float, loss_of: DeepSupervision) -> LossParts:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        x, truth = normalise_batch(images, masks)
        self.model.train()
        loss = loss_of(self.model(x.contiguous(memory_format=torch.channels_last)), truth)
        if not torch.isfinite(loss.total):
            raise CheckFailed(
                f"the loss is {float(loss.total.detach())} after {self.seen} images, in the batch {', '.join(stems)}",
                hint="look at those files; if they are as they should be, lower the learning rate",
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss.total)
        if self.recipe.clip_norm is not None:
            self.fabric.clip_gradients(self.model, self.optimizer, max_norm=self.recipe.clip_norm, error_if_nonfinite=False)
        self.optimizer.step()
        self.ema.update(self.module, self.seen // len(images))
        return loss

    def _log(self, loss: LossParts, rate: float, speed: float) -> None:
        parts = {name: round(float(value), 5) for name, value in loss.parts.items()}
        self._append(
            {
                "seen": self.seen,
                "loss": round(float(loss.total.detach()), 5),
                "lr": rate,
                "images_per_s": round(speed, 2),
                **parts,
            }
        )

    def _validate(self, size: int, speed: float, loss: float) -> None:
        if not self.fabric.is_global_zero:
            return
        scores = validate(self.ema.module, self.source, self.held, size)
        self._append({"seen": self.seen, "validation_size": size, **{k: round(v, 5) for k, v in scores.items()}})
        self.on_progress(Progress(self.seen, self.recipe.images, speed, loss, scores))

    def _append(self, entry: dict[str, Any]) -> None:
        if self.fabric.is_global_zero:
            with open(self.out / "log.jsonl", "a", encoding="utf-8") as log:
                log.write(json.dumps(entry) + "\n")

    def _save(self) -> None:
        if self.fabric.is_global_zero:
            record = {"recipe": self.recipe.model_dump(mode="json"), "torch": torch.__version__}
            save_checkpoint(self.out, self.seen, self.module, self.ema, self.optimizer, record)

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self.is_interrupted = True


def _crossed(before: int, after: int, every: int) -> bool:
    return before // every != after // every
