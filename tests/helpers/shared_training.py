"""A step in one pass and one in two, gradients kept: ``torchrun ... -m tests.helpers.shared_training DATA RUNS``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from tests.helpers.training import tiny_recipe
from trainer.training.loop import Trainer


def gradients_of_one_step(data: str, run: Path, batch: int, accumulate: int = 1) -> dict[str, torch.Tensor]:
    """Train one step of four pictures with batch normalisation in evaluation mode; return the gradients by name."""
    recipe = tiny_recipe(4, clip_norm=None, stage={"size": 64, "batch": batch, "accumulate": accumulate})
    trainer = Trainer(recipe, [data], run, workers=0)
    module = trainer.learner.module
    module.train = lambda _=True: nn.Module.train(module, False)  # type: ignore[method-assign]
    trainer.run()
    assert trainer.seen == 4
    return {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for passes in (1, 2):
        run = Path(sys.argv[2]) / str(passes)
        found = gradients_of_one_step(sys.argv[1], run, 2 // passes, passes)
        rank = torch.distributed.get_rank()
        save_file({name: value.contiguous() for name, value in found.items()}, run / f"gradients-{rank}.safetensors")
    torch.distributed.destroy_process_group()
