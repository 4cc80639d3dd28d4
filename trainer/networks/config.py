"""What is known about a network besides its layers: input, outputs, where it was published, what was measured there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from edgesod.evaluation.published import DATASETS, published_scores
from edgesod.recipe import Preprocessing

AUTHORS_IMAGENET = Preprocessing(resize="linear")
"""RGB with ImageNet statistics, resized without anti-aliasing: U²-Net and BASNet as released.

Their scripts divide by the image's own maximum (``divide_by="max"``); in a video that maximum changes from frame to frame,
so 255 is the default here and ``max`` is for repeating the papers' numbers.
"""


@dataclass(frozen=True)
class Paper:
    """Where a network was published; ``arxiv`` is empty when there is no preprint."""

    title: str
    venue: str
    arxiv: str = ""


@dataclass(frozen=True)
class Speed:
    """Published frames per second; ``device`` is what the source names, empty when it names none."""

    fps: float
    size_hw: tuple[int, int]
    device: str
    source: str


@dataclass(frozen=True)
class NetworkConfig:
    """The record of one network.

    Attributes:
        name: What :func:`trainer.networks.create` takes.
        constructor: Builds it with fresh weights; never downloads.
        size_hw: Height and width it runs at by default, in pixels; where there is one, the size it was published with.
        preprocessing: What the authors' weights expect. Weights trained here on ``halve-linear`` resizing expect that.
        outputs: Names of the maps ``forward`` returns, in order; the first is the prediction and the one exported.
        num_parameters: Learnt values; buffers do not count.
        repository: The authors' release on GitHub.
        licence: Licence of that release (SPDX), empty when it states none.
        paper: Where it was published.
        speeds: Published speeds.
        scratch_rate: AdamW's learning rate from fresh weights: what was seen to work, 1e-3 unless that is too much (docs/training.md).
        derived_from: The published network that this one, a variant of this project's own, was made from and whose weights it
            takes; empty for a published network. Repository and licence are then empty, and ``paper`` is the original's.
    """

    name: str
    constructor: Callable[[], nn.Module]
    size_hw: tuple[int, int]
    preprocessing: Preprocessing
    outputs: tuple[str, ...]
    num_parameters: int
    repository: str
    licence: str
    paper: Paper
    speeds: tuple[Speed, ...] = ()
    scratch_rate: float = 1e-3
    derived_from: str = ""

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """Test set → published scores of the authors' weights (:func:`edgesod.evaluation.published_scores`)."""
        return {dataset: found for dataset in DATASETS if (found := published_scores(self.name, dataset))}
