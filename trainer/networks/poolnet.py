"""PoolNet and BAPoolNet: pooling inside a feature pyramid on ResNet-50.

Architecture and key names of PoolNet follow the authors' release (Liu et al., "A Simple Pooling-Based Design for Real-Time
Salient Object Detection", CVPR 2019, arXiv 1904.09569). BAPoolNet is PoolNet with a score at each of the five fusion steps,
trained with BASNet's loss; it has a public repository and no paper. The official weights of both load by name. The heads
return logits.

Tensor legend: ``x_NCHW`` float, BGR in 0–255 less the ImageNet mean. Every resize aligns corners.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgesod.recipe import Preprocessing

from .config import NetworkConfig, Paper, Speed
from .layers import pool_to_bins, require_at_least, resize_to, static_size
from .resnet import Backbone, CaffeResNet50

_BACKBONE_CHANNELS = (64, 256, 512, 1024, 2048)
_SKIP_CHANNELS = (128, 256, 256, 512, 512)
_GUIDANCE_CHANNELS = (512, 256, 256, 128)
# (channels in, out) of the five aggregation steps, coarsest first
_STEPS = ((512, 512), (512, 256), (256, 256), (256, 128), (128, 128))
_SMALLEST = 128  # below it the coarsest map is smaller than the widest pooling


class PoolNet(nn.Module):
    """A top-down pathway whose every step sees several scales and a global guidance map.

    Args:
        scores_every_step: Give each of the five steps a score (BAPoolNet), not only the last (PoolNet).

    ``forward`` takes float ``(N, 3, H, W)`` with H and W of 128 or more and returns logit maps ``(N, 1, H, W)``: one for
    PoolNet, five for BAPoolNet, the finest step first.

    As published it is trained on an ImageNet backbone with batch normalisation frozen: see
    :func:`trainer.networks.load_backbone`. Without one, batch normalisation learns as usual.
    """

    backbone: ClassVar = Backbone(keys={"base.resnet.": ""}, unused=("fc.",), freezes_batch_norm=True)

    def __init__(self, *, scores_every_step: bool = False) -> None:
        super().__init__()
        self.base = GuidedBase()
        self.deep_pool = nn.ModuleList(
            # the coarsest map already has its skip's size; the finest step has no skip
            FeatureAggregation(c_in, c_out, fuses=k < len(_STEPS) - 1)
            for k, (c_in, c_out) in enumerate(_STEPS)
        )
        projections = [_conv_relu(c_in, c_out, 1) for c_in, c_out in zip(_BACKBONE_CHANNELS, _SKIP_CHANNELS, strict=True)]
        self.convert = nn.ModuleDict({"convert0": nn.ModuleList(projections)})
        if scores_every_step:
            self.score_layers = nn.ModuleList(_score(c_out) for _, c_out in _STEPS)
        else:
            self.score = _score(_STEPS[-1][1])
        self.scores_every_step = scores_every_step
        self._initialise()

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        require_at_least(x_NCHW, _SMALLEST, "PoolNet")
        size = static_size(x_NCHW)
        features, guidance = self.base(x_NCHW)
        skips = [convert(x) for convert, x in zip(self.convert["convert0"], features, strict=True)][::-1]
        x = skips[0]
        steps = []
        for step, skip, guide in zip(self.deep_pool[:-1], skips[1:], guidance, strict=True):
            x = step(x, skip, guide)
            steps.append(x)
        steps.append(self.deep_pool[-1](x))
        if not self.scores_every_step:
            return [resize_to(self.score["score"](steps[-1]), size)]
        scores = [resize_to(head["score"](x), size) for head, x in zip(self.score_layers, steps, strict=True)]
        return scores[::-1]

    def train(self, mode: bool = True) -> PoolNet:
        """Set the mode; batch normalisation whose scale asks for no gradient is frozen and stays in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
                module.eval()
        return self

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class GuidedBase(nn.Module):
    """The backbone, pyramid pooling on its last map, and the guidance maps made from that.

    ``forward`` returns the backbone's five maps, finest first, and four guidance maps, coarsest first, each of the size of
    the skip it is added to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.resnet = CaffeResNet50()
        self.ppms_pre = nn.Conv2d(2048, 512, 1, bias=False)
        self.ppms = nn.ModuleList(nn.Sequential(BinPool(bins), *_conv_relu(512, 512, 1)) for bins in (1, 3, 5))
        self.ppm_cat = _conv_relu(4 * 512, 512, 3)
        self.infos = nn.ModuleList(_conv_relu(512, channels, 3) for channels in _GUIDANCE_CHANNELS)

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        features = self.resnet(x)
        top = self.ppms_pre(features[-1])
        pyramid = [top] + [resize_to(ppm(top), static_size(top)) for ppm in self.ppms]
        pooled = self.ppm_cat(torch.cat(pyramid, 1))
        skips = features[-2::-1]
        return features, [info(resize_to(pooled, static_size(skip))) for info, skip in zip(self.infos, skips, strict=True)]


class BinPool(nn.Module):
    """Average pooling to ``bins`` × ``bins``; stands first in a sequence so that the convolution after it keeps its key."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, x: Tensor) -> Tensor:
        return pool_to_bins(x, self.bins)


class FeatureAggregation(nn.Module):
    """Sum of a map and what 3×3 convolutions see of it at 1/2, 1/4 and 1/8; then, if it ``fuses``, skip and guidance."""

    def __init__(self, c_in: int, c_out: int, *, fuses: bool) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(c_in, c_in, 3, padding=1, bias=False) for _ in (2, 4, 8))
        self.conv_sum = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
        self.conv_sum_c = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False) if fuses else None

    def forward(self, x: Tensor, skip: Tensor | None = None, guidance: Tensor | None = None) -> Tensor:
        size = static_size(x)
        total = x
        for factor, conv in zip((2, 4, 8), self.convs, strict=True):
            total = total + resize_to(conv(F.avg_pool2d(x, factor)), size)
        x = F.relu(total, inplace=True)
        if self.conv_sum_c is None or skip is None or guidance is None:
            return self.conv_sum(x)
        return self.conv_sum_c(self.conv_sum(resize_to(x, static_size(skip))) + skip + guidance)


def poolnet() -> PoolNet:
    """PoolNet on ResNet-50, 68,261,057 parameters."""
    return PoolNet()


def bapoolnet() -> PoolNet:
    """BAPoolNet, 68,262,213 parameters."""
    return PoolNet(scores_every_step=True)


def _conv_relu(c_in: int, c_out: int, side: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, side, padding=side // 2, bias=False), nn.ReLU(inplace=True))


def _score(channels: int) -> nn.ModuleDict:
    return nn.ModuleDict({"score": nn.Conv2d(channels, 1, 1)})


_PREPROCESSING = Preprocessing(
    resize="linear", colour="BGR", divide_by="1", mean=(104.00699, 116.66877, 122.67892), std=(1.0, 1.0, 1.0)
)
_PAPER = Paper("A Simple Pooling-Based Design for Real-Time Salient Object Detection", "CVPR 2019", "1904.09569")

# The authors run both at each picture's own size; an engine needs one, and 320 is what the other networks run at.
CONFIGS = (
    NetworkConfig(
        name="poolnet",
        scratch_rate=2e-4,
        constructor=poolnet,
        size_hw=(320, 320),
        preprocessing=_PREPROCESSING,
        outputs=("saliency",),
        num_parameters=68_261_057,
        repository="backseason/PoolNet",
        licence="MIT",
        paper=_PAPER,
        speeds=(Speed(30, (300, 400), "", "arXiv 1904.09569 abstract: more than 30 fps"),),
    ),
    NetworkConfig(
        name="bapoolnet",
        scratch_rate=2e-4,
        constructor=bapoolnet,
        size_hw=(320, 320),
        preprocessing=_PREPROCESSING,
        outputs=("score4", "score3", "score2", "score1", "score0"),
        num_parameters=68_262_213,
        repository="chouxianyu/Boundary-Aware-PoolNet",
        licence="",
        paper=_PAPER,  # the network it builds on; it has none of its own
    ),
)
