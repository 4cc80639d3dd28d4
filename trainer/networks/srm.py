"""SRM: a coarse map from one ResNet-50, refined twice with the finer features of a second one.

Wang et al., "A Stagewise Refinement Model for Detecting Salient Objects in Images", ICCV 2017. Written from the layers and
sizes of the released Caffe model (master network and two refinements); the weights exist for Caffe only, so there is no
key scheme to follow. Each stage predicts background and foreground; what leaves the network is their difference.

Tensor legend: ``x_NCHW`` float, BGR in 0–255, which a batch normalisation on the input brings to scale. Every resize aligns
corners.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgesod.recipe import Preprocessing
from trainer.kernels import norm_relu

from .config import NetworkConfig, Paper
from .layers import pool_by_side, require_at_least, resize_to, static_size

_BINS = (6, 3, 2, 1)
_SMALLEST = 65  # three pixels on the coarsest map


class SRM(nn.Module):
    """The three-stage network.

    ``forward`` takes float ``(N, 3, H, W)`` with H and W of 65 or more and returns three logit maps ``(N, 1, H, W)``, the last
    stage first. At sizes of 32·k + 1, such as 353, each stage's map is an exact zoom of the one before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.master = PreActResNet50(layers=4)
        self.master_head = nn.Sequential(nn.Conv2d(2048, 256, 3, padding=1, bias=False), nn.Conv2d(256, 2, 1))
        self.refiner = PreActResNet50(layers=3)
        self.stage2 = Refinement(1024)
        self.stage3 = Refinement(512)
        self._initialise()

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        require_at_least(x_NCHW, _SMALLEST, "SRM")
        size = static_size(x_NCHW)
        coarse = self.master_head(self.master(x_NCHW)[-1])
        eighth, sixteenth = self.refiner(x_NCHW)
        middle = self.stage2(sixteenth, coarse)
        fine = self.stage3(eighth, middle)
        return [_logit(resize_to(scores, size)) for scores in (fine, middle, coarse)]

    def _initialise(self) -> None:
        # "MSRA" in Caffe's words; the stems alone count their outputs
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                is_stem = module.kernel_size == (7, 7)
                nn.init.kaiming_normal_(module.weight, mode="fan_out" if is_stem else "fan_in", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class Refinement(nn.Module):
    """Pyramid pooling over a feature map, then two classifying convolutions that also see the stage before.

    ``forward`` takes features ``(N, C, h, w)`` and two-channel scores of a coarser stage; returns scores ``(N, 2, h, w)``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pyramid = nn.ModuleList(nn.Conv2d(channels, 512, 1, bias=False) for _ in _BINS)
        self.merge = nn.Conv2d(channels + 512 * len(_BINS), 256, 3, padding=1, bias=False)
        self.compress = nn.Conv2d(256, 64, 3, padding=1, bias=False)
        self.classify1 = nn.Conv2d(2 + 64, 2, 3, padding=1, bias=False)
        self.classify2 = nn.Conv2d(2, 2, 3, padding=1, bias=False)

    def forward(self, features: Tensor, coarser: Tensor) -> Tensor:
        size = static_size(features)
        pooled = [resize_to(conv(pool_by_side(features, bins)), size) for bins, conv in zip(_BINS, self.pyramid, strict=True)]
        x = self.merge(torch.cat((features, *pooled), 1))
        x = F.relu(self.compress(x), inplace=True)
        return self.classify2(self.classify1(torch.cat((resize_to(coarser, size), x), 1)))


class PreActResNet50(nn.Module):
    """ResNet-50 with normalisation and ReLU before each convolution (He et al., "Identity Mappings", ECCV 2016).

    Args:
        layers: How many of the four layers it has.

    ``forward`` returns the normalised, rectified map after each layer from the second on: 512 channels at 1/8, 1024 at 1/16
    and 2048 at 1/32.
    """

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.data_bn = nn.BatchNorm2d(3)
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2d(64)
        c_in = 64
        self.layers, self.norms = nn.ModuleList(), nn.ModuleList()
        for k, blocks in enumerate((3, 4, 6, 3)[:layers]):
            c_mid = 64 * 2**k
            first = PreActBottleneck(c_in, c_mid, stride=2 if k else 1)
            c_in = 4 * c_mid
            rest = (PreActBottleneck(c_in, c_mid, normalises_input=True) for _ in range(blocks - 1))
            self.layers.append(nn.Sequential(first, *rest))
            self.norms.append(nn.BatchNorm2d(c_in))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = norm_relu(self.bn1, self.conv1(self.data_bn(x)))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        features = []
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm_relu(norm, layer(x))
            features.append(x)
        return features[1:]


class PreActBottleneck(nn.Module):
    """1×1, 3×3, 1×1 around a shortcut, the stride on the second.

    Args:
        c_in: Channels of the input.
        c_mid: Channels of the middle; a quarter of the output's.
        stride: Of the 3×3 convolution and the shortcut.
        normalises_input: Whether the input still wants its normalisation. A layer's first block gets it normalised, since
            the same map is what the layer before hands out, and projects its shortcut.
    """

    def __init__(self, c_in: int, c_mid: int, stride: int = 1, *, normalises_input: bool = False) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(c_in) if normalises_input else None
        self.conv1 = nn.Conv2d(c_in, c_mid, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_mid)
        self.conv2 = nn.Conv2d(c_mid, c_mid, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(c_mid)
        self.conv3 = nn.Conv2d(c_mid, 4 * c_mid, 1, bias=False)
        self.expand = None if normalises_input else nn.Conv2d(c_in, 4 * c_mid, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.expand is None else self.expand(x)
        if self.bn1 is not None:
            x = norm_relu(self.bn1, x)
        x = norm_relu(self.bn2, self.conv1(x))
        x = norm_relu(self.bn3, self.conv2(x))
        return self.conv3(x) + residual


def _logit(scores: Tensor) -> Tensor:
    # softmax over (background, foreground) is sigmoid(foreground − background): exact, and one map like every network's
    background, foreground = scores.chunk(2, 1)
    return foreground - background


CONFIGS = (
    NetworkConfig(
        name="srm",
        scratch_rate=2e-4,
        constructor=SRM,
        size_hw=(353, 353),
        preprocessing=Preprocessing(resize="linear", colour="BGR", divide_by="1", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        outputs=("stage3", "stage2", "stage1"),
        num_parameters=53_178_526,
        repository="TiantianWang/ICCV17_SRM",
        licence="",
        paper=Paper("A Stagewise Refinement Model for Detecting Salient Objects in Images", "ICCV 2017"),
    ),
)
