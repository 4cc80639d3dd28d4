"""What learns: a network, the average of its weights and the optimiser, and one step of the three."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from edgesod.errors import CheckFailed, InputError, UsageError
from trainer import networks
from trainer.data.loader import normalise_batch
from trainer.losses import DeepSupervision, LossParts

from .checkpoint import load_checkpoint, read_record, save_checkpoint
from .ema import Ema
from .optimizer import make_optimizer, set_learning_rate
from .recipe import TrainingRecipe
from .teacher import Teacher

log = logging.getLogger("edgesod.trainer")

Batch = tuple[Tensor, Tensor, Sequence[str]]
"""uint8 images ``(N, 3, H, W)``, uint8 masks ``(N, 1, H, W)`` and the stem of each."""


class Learner:
    """A network in training.

    Args:
        recipe: Which network, loss, teacher and optimiser.
        fabric: Where to compute.

    Attributes:
        about: What the weights' files say: the network and what it is fed.
        module: The network itself, whatever wraps it for several processes.
        ema: The average of its weights.
        has_frozen_norm: Whether batch normalisation stays as the backbone's file had it.
        teacher: What it learns from besides the truth, ``None`` where the recipe has none.
    """

    def __init__(self, recipe: TrainingRecipe, fabric: Fabric) -> None:
        self.recipe, self.fabric = recipe, fabric
        config = networks.config(recipe.network)
        changes = {"resize": recipe.resize} | ({"divide_by": recipe.divide_by} if recipe.divide_by is not None else {})
        preprocessing = config.preprocessing.model_copy(update=changes)
        self.about = networks.WeightsMetadata(recipe.network, preprocessing)
        self.loss_of = DeepSupervision(recipe.loss, recipe.output_weights, config.outputs)
        _require_sizes(recipe)
        self.teacher = Teacher(recipe.teacher, fabric) if recipe.teacher is not None else None
        torch.manual_seed(recipe.seed)
        # on the device from the start: an optimiser's state is loaded to where its parameters are
        self.module: nn.Module = networks.create(recipe.network).to(fabric.device, memory_format=torch.channels_last)
        self.ema = Ema(self.module, recipe.ema_decay)
        self.optimizer = make_optimizer(recipe, self.module)
        self.has_frozen_norm = False

    def load_backbone(self, path: Path) -> None:
        """Take the backbone's weights from a file, and freeze batch normalisation where the network is trained so."""
        networks.load_backbone(self.module, path)
        self.ema = Ema(self.module, self.recipe.ema_decay)
        self.has_frozen_norm = any(not parameter.requires_grad for parameter in self.module.parameters())

    def load_weights(self, path: Path) -> None:
        """Take all weights from a file; averages and optimiser begin anew."""
        networks.load_weights(self.module, path)
        self.ema = Ema(self.module, self.recipe.ema_decay)

    def load(self, folder: Path) -> int:
        """Take everything from a checkpoint folder; return the number of images that it had seen.

        Raises:
            InputError: It is damaged, or of another network, optimiser or shares of the rate.
        """
        record = read_record(folder)
        saved = {"lr_shares": {}} | record["recipe"]
        for what in ("network", "optimizer", "lr_shares"):  # the shares too: the optimiser's state is stored by position
            theirs, ours = saved.get(what), getattr(self.recipe, what)
            if theirs != ours:
                raise InputError(
                    f"{folder} is of the {what} {theirs}, the recipe asks for {ours}",
                    hint=f"another --out, or weights alone: --start-from {folder / 'ema.safetensors'}",
                )
        load_checkpoint(folder, self.module, self.ema, self.optimizer)
        if record.get("has_frozen_norm"):
            networks.freeze_batch_norm(self.module)
            self.has_frozen_norm = True
        taught_by = record.get("teacher")
        if self.teacher is not None and taught_by not in (None, self.teacher.about):
            log.warning(
                "%s was taught by other weights than the %s that teaches from here on", folder, self.teacher.about["network"]
            )
        if scaler := record.get("loss_scale"):
            self.fabric.strategy.precision.load_state_dict(scaler)
        seen: int = record["images_seen"]
        return seen

    def save(self, run: Path, seen: int, about: Mapping[str, Any]) -> None:
        """Write a checkpoint into a run's folder, ``about`` the run in its record; see :func:`save_checkpoint`."""
        record = {
            **about,
            "recipe": self.recipe.model_dump(mode="json"),
            "torch": torch.__version__,
            "teacher": self.teacher.about if self.teacher is not None else None,
            "has_frozen_norm": self.has_frozen_norm,
            "loss_scale": self.fabric.strategy.precision.state_dict(),
        }
        save_checkpoint(run, seen, self.module, self.ema, self.optimizer, record, self.about)

    def start(self) -> None:
        """Share the work out to all processes; call it once, after loading."""
        if self.fabric.world_size > 1 and self.fabric.device.type == "cuda" and not self.has_frozen_norm:
            self.module = nn.SyncBatchNorm.convert_sync_batchnorm(self.module)
        self.model, self.stepper = self.fabric.setup(self.module, self.optimizer)

    def step(self, batches: Sequence[Batch], rate: float, seen: int) -> LossParts:
        """Take one step on the mean gradient of several batches; return their mean loss.

        Args:
            batches: On the device; batch normalisation sees each alone.
            rate: Learning rate.
            seen: Images seen before this step.

        Raises:
            CheckFailed: A loss is not finite, or the gradient is not; the parameters are as they were.
        """
        set_learning_rate(self.optimizer.param_groups, rate)
        self.model.train()
        self.stepper.zero_grad(set_to_none=True)
        losses = []
        for k, (images, masks, stems) in enumerate(batches):
            x, truth = normalise_batch(images, self.about.preprocessing), masks.float() / 255
            taught = self.teacher(images) if self.teacher is not None else None
            with self.fabric.no_backward_sync(self.model, enabled=k < len(batches) - 1):
                loss = self.loss_of(self.model(x), truth, taught)
                if not torch.isfinite(loss.total):
                    raise _not_finite(f"the loss is {float(loss.total.detach())}", seen, stems)
                self.fabric.backward(loss.total / len(batches))
            losses.append(loss)
        norm = self._clip()
        # fp16's scale is found by trying: where gradients overflow, the scaler leaves the step out and halves it
        if not torch.isfinite(norm) and self.fabric.strategy.precision.state_dict().get("scale", 0.0) < 1:
            of_all = f", of all {self.fabric.world_size} processes' batches," if self.fabric.world_size > 1 else ""
            stems = [stem for _, _, stems in batches for stem in stems]
            raise _not_finite(f"the gradient's norm{of_all} is {float(norm)}", seen, stems)
        self.stepper.step()
        images_per_step = sum(len(stems) for _, _, stems in batches) * self.fabric.world_size
        self.ema.update(self.module, seen // images_per_step)
        return LossParts.mean(losses)

    def _clip(self) -> Tensor:
        """Scale a gradient that is longer than the recipe allows down to that; return the norm it had, or any that is not finite."""
        longest = self.recipe.clip_norm
        if longest is None:
            return nn.utils.get_total_norm([one.grad for one in self.module.parameters() if one.grad is not None])
        clipped = self.fabric.clip_gradients(self.model, self.stepper, max_norm=longest, error_if_nonfinite=False)
        return cast(Tensor, clipped)


def _not_finite(what: str, seen: int, stems: Sequence[str]) -> CheckFailed:
    return CheckFailed(
        f"{what} after {seen} images, in the batch {', '.join(stems)}",
        hint="look at those files; if they are as they should be, lower the learning rate",
    )


def require_size(network: str, size: int, batch: int, what: str) -> None:
    """Raise ``UsageError`` for pictures that a network cannot take, before a run gets there; ``what`` of the recipe wants them."""
    with torch.device("meta"):
        try:
            networks.create(network)(torch.empty(batch, 3, size, size))
        except ValueError as error:
            raise UsageError(f"{what} of the recipe: {error}", hint="another size or batch") from error


def _require_sizes(recipe: TrainingRecipe) -> None:
    both = (recipe.network, recipe.teacher.network) if recipe.teacher is not None else (recipe.network,)
    for network in both:
        for k, stage in enumerate(recipe.stages, 1):
            require_size(network, stage.size, stage.batch, f"stage {k}")
