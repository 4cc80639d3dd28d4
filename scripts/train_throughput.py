"""Images a second of the trainer against a plain loop written as the authors' scripts are.

    python scripts/train_throughput.py --data DUTS-TR [--rounds 5] [--threads N] [--document docs/training.md]

Both train U²-NetP on the same pictures with Adam and the cross-entropy of all seven maps. The plain loop is float32 on
contiguous tensors; scikit-image reads and resizes each picture (without anti-aliasing, as the release the authors pin
does), NumPy normalises it, and every loss is read back in every step. The two run as processes of their own that take turns
round by round, so a machine that slows down slows down both; the ratio is taken within a round. Waiting for pictures is part of
a step, and shown. On two quiet cores it takes eight minutes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
from documents import at_least_one, replace_between, run, say
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from edgesod.errors import CheckFailed
from edgesod.evaluation import EvaluationSet, hold_out
from trainer import networks
from trainer.training.batches import batches_of
from trainer.training.devices import make_fabric
from trainer.training.learner import Learner
from trainer.training.recipe import load_recipe

BEGIN, END = "<!-- throughput: written by scripts/train_throughput.py -->", "<!-- end of throughput -->"
CASES = ((128, 8, 6), (288, 4, 4))
"""Height and width, pictures to a batch, timed steps to a turn."""

_PAUSE_S = 2.0  # until the loaders of the one whose turn is over have filled their queues
_QUEUE = 5  # steps of a turn before the timed ones: they use up what was loaded while the other had its turn

Turn = tuple[float, float]
"""Seconds of some steps, and how many of them were spent waiting for pictures."""


def main() -> None:
    """Measure, print a table, and put it into the document where one is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="training set; several for its parts")
    parser.add_argument("--rounds", type=at_least_one, default=5)
    parser.add_argument("--threads", type=at_least_one, default=torch.get_num_threads())
    parser.add_argument("--document", type=Path, help="whose table to replace")
    options = parser.parse_args()
    EvaluationSet(*options.data)  # a wrong name is told here, before there are processes to tell it
    lines = [
        f"torch {torch.__version__}, {options.threads} threads, {options.rounds} turns of each",
        "",
        "| pictures | plain, images/s | trainer, images/s | ratio, median (min to max) | waiting for data: plain, trainer |",
        "|---|---|---|---|---|",
    ]
    for size, batch, steps in CASES:
        plain, ours = _take_turns(options.data, size, batch, options.rounds, steps, options.threads)
        ratios = [p[0] / o[0] for p, o in zip(plain, ours, strict=True)]
        speeds = [batch * steps / median(turn[0] for turn in turns) for turns in (plain, ours)]
        waits = [sum(turn[1] for turn in turns) / sum(turn[0] for turn in turns) for turns in (plain, ours)]
        lines.append(
            f"| {size}×{size}, batch {batch} | {speeds[0]:.2f} | {speeds[1]:.2f} "
            f"| {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {waits[0]:.1%}, {waits[1]:.1%} |"
        )
        say(lines[-1])
    print("\n".join(lines))
    if options.document:
        replace_between(options.document, BEGIN, END, lines)


def _take_turns(
    data: Sequence[str], size: int, batch: int, rounds: int, steps: int, threads: int
) -> tuple[list[Turn], list[Turn]]:
    context = get_context("spawn")
    sides = []
    for train in (_train_plainly, _train_ours):
        here, there = context.Pipe()
        # not a daemon, which could not have loader processes of its own
        process = context.Process(target=train, args=(there, data, size, batch, threads))
        process.start()
        there.close()  # the process alone holds it now: should it fail, its end of the pipe closes
        sides.append((process, here))
    turns: list[list[Turn]] = [[], []]
    try:
        for _ in range(rounds):
            for side, (_, pipe) in enumerate(sides):
                time.sleep(_PAUSE_S)
                pipe.send(steps)
                turns[side].append(pipe.recv())
    except (EOFError, OSError):
        raise CheckFailed("one of the two loops ended; what it said is above") from None
    finally:
        for process, pipe in sides:
            pipe.close()
            process.join()
    return turns[0], turns[1]


def _serve(pipe: Connection, batches: Iterator[Any], step: Callable[[Any], object]) -> None:
    """Time as many steps as the pipe asks for, after those that warm up, time and again, until it is closed."""
    for steps in iter(partial(_asked, pipe), None):
        for _ in range(_QUEUE):
            step(next(batches))
        begin, waited = time.perf_counter(), 0.0
        for _ in range(steps):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            step(batch)
        pipe.send((time.perf_counter() - begin, waited))


def _asked(pipe: Connection) -> int | None:
    try:
        return int(pipe.recv())
    except EOFError:
        return None


def _train_ours(pipe: Connection, data: Sequence[str], size: int, batch: int, threads: int) -> None:
    torch.set_num_threads(threads)
    recipe = load_recipe("u2netp")
    stage = recipe.stages[0].model_copy(update={"size": size, "batch": batch})
    augmentation = recipe.augmentation.model_copy(update={"rescale": round(size * 320 / 288)})
    recipe = recipe.model_copy(
        update={"precision": "auto", "stages": (stage,), "ema_decay": 0.999, "augmentation": augmentation}
    )
    learner = Learner(recipe, make_fabric(recipe.precision))
    learner.start()
    source = EvaluationSet(*data)
    stems = hold_out(source.stems)[0]
    batches = batches_of(recipe, stage, source, stems, learner.fabric, seen=0, workers=1)
    _serve(pipe, batches, lambda pictures: learner.step([pictures], stage.lr, 0))


def _train_plainly(pipe: Connection, data: Sequence[str], size: int, batch: int, threads: int) -> None:
    torch.set_num_threads(threads)
    source = EvaluationSet(*data)
    loader = DataLoader(AuthorsSet(source, hold_out(source.stems)[0], size), batch_size=batch, shuffle=True, num_workers=1)
    network = networks.create("u2netp").train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0)
    bce = nn.BCELoss()

    def step(pictures: tuple[Tensor, Tensor]) -> list[float]:
        images, masks = (tensor.type(torch.FloatTensor) for tensor in pictures)
        optimizer.zero_grad()
        losses = [bce(torch.sigmoid(logits), masks) for logits in network(images)]
        total = torch.stack(losses).sum()
        total.backward()
        optimizer.step()
        return [loss.item() for loss in (*losses, total)]

    _serve(pipe, _endless(loader), step)


def _endless(loader: DataLoader[Any]) -> Iterator[Any]:
    while True:
        yield from loader


class AuthorsSet(Dataset[tuple[Tensor, Tensor]]):
    """Pictures as ``RescaleT``, ``RandomCrop`` and ``ToTensorLab(flag=0)`` make them, in float64 until the step."""

    def __init__(self, source: EvaluationSet, stems: list[str], size: int) -> None:
        self.source, self.stems, self.size = source, stems, size
        self.rescaled = round(size * 320 / 288)

    def __len__(self) -> int:
        return len(self.stems)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        from skimage.transform import resize

        image, mask = self.source.read(self.stems[index])
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        shape = (self.rescaled, self.rescaled)
        image = resize(image, shape, mode="constant", anti_aliasing=False)
        mask = resize(mask, shape, mode="constant", order=0, preserve_range=True, anti_aliasing=False)
        if np.random.random() >= 0.5:
            image, mask = image[::-1], mask[::-1]
        top, left = (np.random.randint(0, self.rescaled - self.size) for _ in range(2))
        window = np.s_[top : top + self.size, left : left + self.size]
        image, mask = image[window], mask[window]
        image = image / image.max()
        mask = mask if mask.max() < 1e-6 else mask / mask.max()
        pixels = np.zeros(image.shape)
        for channel, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
            pixels[:, :, channel] = (image[:, :, channel] - mean) / std
        return torch.from_numpy(pixels.transpose(2, 0, 1)), torch.from_numpy(mask[None].copy())


if __name__ == "__main__":
    run(main)
