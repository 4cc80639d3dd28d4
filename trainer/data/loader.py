"""Batches in an order that depends on the seed and the number of images seen, and on nothing else."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from edgesod.errors import BackendError, EdgesodError, InputError
from edgesod.evaluation.pairs import EvaluationSet
from edgesod.processing.resize import ResizeMode
from edgesod.recipe import Preprocessing

from .transforms import Augmentation, augment

Key = tuple[int, int]  # (epoch, position in the list of stems)

_GRACE_S = 60
"""For a step, a validation and a checkpoint after SIGTERM."""


class TrainingSet(Dataset[tuple[Tensor, Tensor, str]]):
    """Augmented pairs by ``(epoch, index)``.

    Args:
        source: Where the pairs are.
        stems: Those of it to train on.
        size: Height and width wanted, in pixels.
        augmentation: How far to move each from the original.
        seed: Of every random choice.
        resize: How pictures are scaled: as the network's :class:`~edgesod.recipe.Preprocessing` will do it ever after.

    Yields the image as uint8 RGB ``(3, size, size)``, the mask as uint8 ``(1, size, size)`` and the stem; normalisation
    happens per batch in :func:`normalise_batch`, which is cheaper and keeps the hand-over between processes small.
    """

    def __init__(
        self,
        source: EvaluationSet,
        stems: Sequence[str],
        size: int,
        augmentation: Augmentation,
        seed: int,
        resize: ResizeMode = "halve-linear",
    ) -> None:
        self.source, self.stems, self.size = source, list(stems), size
        self.augmentation, self.seed, self.resize = augmentation, seed, resize

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor, str]:
        epoch, index = key
        stem = self.stems[index]
        rng = np.random.default_rng((self.seed, epoch, index))
        image_BGR, mask = self.source.read(stem)
        image_RGB = cv2.cvtColor(image_BGR, cv2.COLOR_BGR2RGB)
        image, mask = augment(image_RGB, mask, self.size, self.augmentation, rng, self.resize)
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(mask)[None], stem


class ResumableOrder:
    """Endless batches of ``(epoch, index)`` keys, starting after ``seen`` images.

    Each epoch is one permutation of the set, seeded by ``(seed, epoch)``. Ranks take turns at its batches; what is left at its
    end and is not a batch for each is dropped.
    """

    def __init__(self, n: int, batch: int, seed: int, seen: int, rank: int = 0, num_ranks: int = 1) -> None:
        if n < batch * num_ranks:
            raise InputError(
                f"{n} images to train on do not fill one batch of {batch * num_ranks}", hint="a smaller batch, or more images"
            )
        self.n, self.batch, self.seed, self.seen = n, batch, seed, seen
        self.rank, self.num_ranks = rank, num_ranks

    def __iter__(self) -> Iterator[list[Key]]:
        whole = self.batch * self.num_ranks
        batches_per_epoch = self.n // whole
        step = self.seen // whole
        while True:
            epoch, first = divmod(step, batches_per_epoch)
            order = np.random.default_rng((self.seed, epoch)).permutation(self.n)
            for k in range(first, batches_per_epoch):
                start = k * whole + self.rank * self.batch
                yield [(epoch, int(i)) for i in order[start : start + self.batch]]
                step += 1


Loaded = tuple[Tensor, Tensor, list[str]]
"""uint8 images ``(N, 3, H, W)``, uint8 masks ``(N, 1, H, W)`` and the stem of each."""


def load(dataset: TrainingSet, order: ResumableOrder, workers: int) -> Iterator[Loaded]:
    """Yield the batches of ``dataset`` in ``order``; ``workers`` processes decode ahead (0: in this one).

    Raises:
        InputError: A picture or mask cannot be read.
        BackendError: A process that decodes was killed.
    """
    # spawn, not fork: the parent runs OpenMP threads, and a forked OpenCV would inherit their locked pools
    loader: DataLoader[Loaded | EdgesodError] = DataLoader(
        _Guarded(dataset),
        batch_sampler=order,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_quiet_worker,
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=4 if workers else None,
    )
    try:
        for batch in loader:
            if isinstance(batch, EdgesodError):
                raise batch
            yield batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise BackendError(
            f"a process that decodes pictures ended: {str(error).splitlines()[0]}",
            hint="--workers 0; in a container, more shared memory (docker run --shm-size 2g)",
        ) from error


class _Guarded(Dataset[tuple[Tensor, Tensor, str] | EdgesodError]):
    """Hand errors over as values: raised in a worker, one would arrive as text with a traceback in it, and without its hint."""

    def __init__(self, dataset: TrainingSet) -> None:
        self.dataset = dataset

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor, str] | EdgesodError:
        try:
            return self.dataset[key]
        except EdgesodError as error:
            return error


def _collate(samples: list[tuple[Tensor, Tensor, str] | EdgesodError]) -> Loaded | EdgesodError:
    failed = next((sample for sample in samples if isinstance(sample, EdgesodError)), None)
    if failed is not None:
        return failed
    images, masks, stems = default_collate(samples)
    return images, masks, list(stems)


def normalise_batch(images: Tensor, how: Preprocessing) -> Tensor:
    """Return what a network is fed: float32 ``(N, 3, H, W)``, channels-last in memory, channels in the order asked for.

    Args:
        images: uint8 RGB ``(N, 3, H, W)``.
        how: Channel order, divisor, mean and standard deviation; resizing has happened.
    """
    x = images.float()
    if how.colour == "BGR":
        x = x.flip(1)
    divisor = x.amax((1, 2, 3), keepdim=True).clamp(min=1) if how.divide_by == "max" else float(how.divide_by)
    mean, std = (torch.tensor(values, device=x.device)[:, None, None] for values in (how.mean, how.std))
    return ((x - mean * divisor) / (std * divisor)).contiguous(memory_format=torch.channels_last)


def _quiet_worker(_: int) -> None:
    # Ctrl-C reaches the whole group, and a cluster's or systemd's SIGTERM all of a job; the main process decides when to end, and
    # should it only wait for this one to end, it does not wait for ever
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_S))
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
