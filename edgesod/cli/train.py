"""``edgesod train``: train a network from image–mask pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgesod.cli import _output
from edgesod.errors import BackendError, UsageError

NAME = "train"


def command(
    data: Annotated[
        list[str], typer.Option(help="Folder with images/ and masks/, or a tar of one; may be given several times.")
    ],
    out: Annotated[Path, typer.Option(help="The run's folder: checkpoints and log.")],
    model: Annotated[str | None, typer.Option(help="Network; the recipe's by default.")] = None,
    recipe: Annotated[str, typer.Option(help="Name of a shipped training recipe, or a TOML file.")] = "u2netp-trunk",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --out.")] = False,
    start_from: Annotated[Path | None, typer.Option(help="Start from a checkpoint folder of another run.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode pictures.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of torch.")] = None,
) -> None:
    """Train, with EMA weights, checkpoints that survive being killed, and validation on every 20th picture.

    Ctrl-C or SIGTERM saves and stops; the same command with --resume goes on from there.
    """
    try:
        import torch

        from trainer.training.checkpoint import checkpoints
        from trainer.training.loop import Progress, Trainer
        from trainer.training.recipe import load_recipe
    except ImportError as error:
        raise BackendError(
            f"training needs torch ({error})", hint="pip install torch '.[train]', in a clone of edgesod"
        ) from error
    plan = load_recipe(recipe)
    if model is not None and model != plan.network:
        plan = plan.model_copy(update={"network": model})
    if checkpoints(out) and not resume:
        raise UsageError(f"{out} holds a run already", hint="--resume to go on with it, or another --out")
    if threads is not None:
        torch.set_num_threads(threads)
    with _output.progress(f"train {plan.network}") as update:

        def show(progress: Progress) -> None:
            update(progress.seen, progress.images)
            if progress.scores is not None:
                scores = progress.scores
                _output.note(
                    f"{progress.seen} images, {progress.images_per_s:.1f} images/s: loss {progress.loss:.3f}, "
                    f"hold-out max-F {scores['max_f']:.4f}, MAE {scores['mae']:.4f}"
                )

        trainer = Trainer(plan, data, out, start_from=start_from, workers=workers, on_progress=show)
        if trainer.seen:
            _output.note(f"going on after {trainer.seen} images")
        trainer.run()
    _output.result(str(checkpoints(out)[-1]))
    if trainer.is_interrupted:
        raise KeyboardInterrupt
