"""ResNet parts (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016) under torchvision's key names.

BASNet borrows ResNet-34's four layers; PoolNet stands on a whole ResNet-50 as Caffe has it: the stride sits on a bottleneck's
first 1×1 convolution, the stem's pooling rounds up, and the last layer is dilated in place of a stride.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from trainer.kernels import norm_relu


@dataclass(frozen=True)
class Backbone:
    """How a file of ImageNet weights fits into a network.

    Attributes:
        keys: Prefix of the network's keys → prefix of the file's keys.
        unused: Prefixes of the file's keys that the network has no place for.
        freezes_batch_norm: Whether training leaves statistics and scales of batch normalisation as they came.
    """

    keys: Mapping[str, str]
    unused: tuple[str, ...]
    freezes_batch_norm: bool


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut."""

    def __init__(self, c_in: int, c_mid: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_mid, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_mid)
        self.conv2 = nn.Conv2d(c_mid, c_mid, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_mid)
        self.downsample = _projection(c_in, c_mid, stride) if stride != 1 or c_in != c_mid else None

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.downsample is None else self.downsample(x)
        x = norm_relu(self.bn1, self.conv1(x))
        return F.relu(self.bn2(self.conv2(x)) + residual, inplace=True)


class CaffeBottleneck(nn.Module):
    """1×1, 3×3, 1×1 around a shortcut, the stride on the first."""

    def __init__(self, c_in: int, c_mid: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        c_out = 4 * c_mid
        self.conv1 = nn.Conv2d(c_in, c_mid, 1, stride=stride, bias=False)
        self.bn1 = nn.BatchNorm2d(c_mid)
        self.conv2 = nn.Conv2d(c_mid, c_mid, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(c_mid)
        self.conv3 = nn.Conv2d(c_mid, c_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(c_out)
        self.downsample = _projection(c_in, c_out, stride) if stride != 1 or c_in != c_out else None

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.downsample is None else self.downsample(x)
        x = norm_relu(self.bn1, self.conv1(x))
        x = norm_relu(self.bn2, self.conv2(x))
        return F.relu(self.bn3(self.conv3(x)) + residual, inplace=True)


class CaffeResNet50(nn.Module):
    """ResNet-50 down to 1/16; ``forward`` returns five maps of 64, 256, 512, 1024 and 2048 channels, finest first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _bottlenecks(64, 64, 3)
        self.layer2 = _bottlenecks(256, 128, 4, stride=2)
        self.layer3 = _bottlenecks(512, 256, 6, stride=2)
        self.layer4 = _bottlenecks(1024, 512, 3, dilation=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        stem = norm_relu(self.bn1, self.conv1(x))
        layer1 = self.layer1(F.max_pool2d(stem, 3, stride=2, padding=1, ceil_mode=True))
        layer2 = self.layer2(layer1)
        layer3 = self.layer3(layer2)
        return [stem, layer1, layer2, layer3, self.layer4(layer3)]


def basic_layer(c_in: int, c_mid: int, blocks: int, stride: int = 1) -> nn.Sequential:
    """Return one of ResNet-34's layers, its convolutions initialised as torchvision does (He, fan-out)."""
    layer = nn.Sequential(BasicBlock(c_in, c_mid, stride), *(BasicBlock(c_mid, c_mid) for _ in range(blocks - 1)))
    for module in layer.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return layer


def _bottlenecks(c_in: int, c_mid: int, blocks: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    rest = (CaffeBottleneck(4 * c_mid, c_mid, dilation=dilation) for _ in range(blocks - 1))
    return nn.Sequential(CaffeBottleneck(c_in, c_mid, stride, dilation), *rest)


def _projection(c_in: int, c_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride=stride, bias=False), nn.BatchNorm2d(c_out))
