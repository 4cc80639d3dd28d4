"""``edgesod train``: train a network from image–mask pairs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesod.cli import _output
from edgesod.errors import BackendError, UsageError
from edgesod.threads import usable_cpus

if TYPE_CHECKING:
    from trainer.training.loop import Progress
    from trainer.training.recipe import TrainingRecipe

NAME = "train"


def command(
    data: Annotated[
        list[str],
        typer.Option(
            help="Folder with images/ and masks/, or an uncompressed tar of one; may be given several times for parts of one set."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="The run's folder: checkpoints, log.jsonl and TensorBoard's curves.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Network in place of the recipe's: u2net, u2netp, u2netp-fast, basnet, poolnet, bapoolnet or srm."),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="A TOML file, or a shipped recipe: fast, further, scratch, u2netp-fast, or the name of a paper's network."
        ),
    ] = "fast",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --out.")] = False,
    start_from: Annotated[
        Path | None, typer.Option(help="Start from a checkpoint folder of another run, or from a file of weights.")
    ] = None,
    backbone: Annotated[
        Path | None,
        typer.Option(help="ImageNet weights: torchvision's ResNet-34 for basnet, Caffe's ResNet-50 for the PoolNets."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE: change the recipe, such as batch=2, precision=fp16 or augmentation.flip=0."),
    ] = None,
    overfit_one_batch: Annotated[
        bool,
        typer.Option("--overfit-one-batch", help="Only check that the network can learn one batch by heart; writes nothing."),
    ] = False,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that read and augment pictures; 0 does it in the training process.")
    ] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of torch; by default its own choice, at most the CPUs usable here.")
    ] = None,
) -> None:
    """Train a network on images and masks.

    With EMA weights, checkpoints that survive a kill, and validation on every 20th picture, which is never trained on. Ctrl-C or SIGTERM
    saves and stops; the same command with --resume goes on from there. Several GPUs: torchrun --nproc-per-node N -m edgesod train ...
    """
    try:
        import torch

        from trainer.training.checkpoint import checkpoints
        from trainer.training.loop import Trainer
        from trainer.training.recipe import load_recipe, with_settings
    except ImportError as error:
        raise BackendError(
            f"training needs torch ({error})", hint="pip install torch -e '.[train]', in a clone of edgesod"
        ) from error
    plan = load_recipe(recipe)
    if model is not None or settings:
        plan = with_settings(plan, [*([f"network={model}"] if model is not None else []), *(settings or [])])
    torch.set_num_threads(threads or min(torch.get_num_threads(), usable_cpus()))
    if overfit_one_batch:
        if start_from is not None:
            raise UsageError("--overfit-one-batch learns from fresh weights, not from others", hint="leave out --start-from")
        _overfit(plan, data, backbone)
        return
    if out is None:
        raise UsageError("a run needs a folder", hint="--out runs/NAME")
    if out.exists() and not out.is_dir():
        raise UsageError(f"a run needs a folder, and {out} is a file", hint="--out runs/NAME")
    if start_from is not None and (whole := checkpoints(start_from)):
        raise UsageError(f"{start_from} is a run, not one of its checkpoints", hint=f"--start-from {whole[-1]}")
    has_begun = bool(checkpoints(out))
    if has_begun and not resume:
        raise UsageError(f"{out} holds a run already", hint="--resume to go on with it, or another --out")
    with _output.progress(f"train {plan.network}", is_shown=os.environ.get("RANK", "0") == "0") as update:  # torchrun's first

        def show(progress: Progress) -> None:
            update(progress.seen, progress.images, f"{progress.images_per_s:.1f} images/s, loss {progress.loss:.3f}")
            if progress.scores is not None:
                _note_scores(progress, progress.scores)

        trainer = Trainer(plan, data, out, start_from=start_from, backbone=backbone, workers=workers, on_progress=show)
        if trainer.is_first:
            if resume and not has_begun:
                _output.note(f"there is no run in {out} to go on with: a new one begins")
            if not trainer.seen and start_from is None and backbone is None:
                _note_rate(plan)
            _note_start(plan, trainer.seen, trainer.learner.has_frozen_norm, backbone if not has_begun else None)
        trainer.run()
    if trainer.is_first:
        _output.result(str(checkpoints(out)[-1]))
    if trainer.is_interrupted:
        if trainer.is_first:
            _output.note(f"stopped after {trainer.seen} of {plan.images} images; the same command with --resume goes on")
        raise KeyboardInterrupt


def _note_start(plan: TrainingRecipe, seen: int, has_frozen_norm: bool, backbone: Path | None) -> None:
    sizes = ", ".join(f"{stage.images:,} images at {stage.size}×{stage.size} ({stage.lr:g})" for stage in plan.stages)
    _output.note(f"{plan.network} by {plan.optimizer}, rate in brackets: {sizes}")
    if seen:
        _output.note(f"going on after {seen} images")
    if has_frozen_norm:
        _output.note("batch normalisation is frozen as the backbone's file has it")
    elif backbone is not None:
        _output.note("batch normalisation learns on, as this network's authors have it")
    if not has_frozen_norm and any(stage.batch == 1 for stage in plan.stages):
        _output.note(
            "batch normalisation learns from single pictures: maps may turn black. Give --backbone, with which the PoolNets' is "
            "frozen, or a larger batch (--set batch=4); see 'Black pictures' in docs/training.md"
        )


def _note_rate(plan: TrainingRecipe) -> None:
    """Warn of a rate above what was seen to work from fresh weights; Muon gives AdamW's parameters a tenth of its own."""
    from trainer import networks

    most, highest = networks.config(plan.network).scratch_rate, max(stage.lr for stage in plan.stages)
    if plan.optimizer in ("adam", "adamw", "muon") and highest / (10 if plan.optimizer == "muon" else 1) > 3 * most:
        _output.note(
            f"from fresh weights {plan.network} was seen to learn at {most:g} with AdamW; {highest:g} with {plan.optimizer} is much "
            f"more. Rather: --recipe scratch --set lr={most:g}"
        )


def _note_scores(progress: Progress, scores: dict[str, float]) -> None:
    _output.note(
        f"{progress.seen} images, {progress.images_per_s:.1f} images/s: loss {progress.loss:.3f}, "
        f"hold-out max-F {scores['max_f']:.4f}, MAE {scores['mae']:.4f}"
    )
    if scores["blank"] >= 0.5:
        _output.note(
            f"  {scores['blank']:.0%} of the hold-out's maps are blank: nothing found, or everything. Early in a run that passes; "
            "later it does not: see 'Black pictures' in docs/training.md"
        )


def _overfit(plan: TrainingRecipe, data: list[str], backbone: Path | None) -> None:
    from trainer.training.overfit import BOUND, MAX_STEPS, overfit_one_batch

    with _output.progress(f"overfit {plan.network}") as update:
        done = overfit_one_batch(
            plan, data, backbone=backbone, on_progress=lambda k, left: update(k, MAX_STEPS, f"{left:.0%} of the loss left")
        )
    _output.result(
        f"passed: the prediction's loss fell from {done.first:.3f} to {done.last:.3f}, below {BOUND:.0%}, in {done.steps} steps. "
        "Data, loss, gradients and optimiser work together; how well it will do on other pictures this does not say."
    )
