"""BASNet: a ResNet-34 encoder–decoder that predicts, and a small U-Net that refines the prediction's boundary.

Architecture and key names follow the authors' release (Qin et al., "BASNet: Boundary-Aware Salient Object Detection", CVPR
2019), so that the official ``basnet.pth`` loads by name. The encoder keeps full resolution: a 3×3 stem with stride 1
replaces ResNet's 7×7 and its pooling. The heads return logits.

Tensor legend: ``x_NCHW`` float, RGB, normalised as the recipe says.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainer.kernels import concat_upsampled, conv_norm_relu, max_pool, upsample

from .config import AUTHORS_IMAGENET, NetworkConfig, Paper, Speed
from .layers import require_multiple_of_32
from .resnet import Backbone, BasicBlock, basic_layer

# (channels in, between, out, dilations) of the three convolutions of each decoder stage, deepest first
_DECODER = {
    "6d": (1024, 512, 512, (1, 2, 2)),
    "5d": (1024, 512, 512, (1, 1, 1)),
    "4d": (1024, 512, 256, (1, 1, 1)),
    "3d": (512, 256, 128, (1, 1, 1)),
    "2d": (256, 128, 64, (1, 1, 1)),
    "1d": (128, 64, 64, (1, 1, 1)),
}


class BASNet(nn.Module):
    """The predict-and-refine network.

    ``forward`` takes float ``(N, 3, H, W)`` with H and W multiples of 32 and returns eight logit maps ``(N, 1, H, W)``: the
    refined map first, then the decoder's ``d1`` … ``d6`` from fine to coarse, and the bridge's ``db``.
    """

    backbone: ClassVar = Backbone(
        keys={f"encoder{k}.": f"layer{k}." for k in range(1, 5)}, unused=("conv1.", "bn1.", "fc."), freezes_batch_norm=False
    )

    def __init__(self) -> None:
        super().__init__()
        self.inconv = nn.Conv2d(3, 64, 3, padding=1)
        self.inbn = nn.BatchNorm2d(64)
        self.encoder1 = basic_layer(64, 64, 3)
        self.encoder2 = basic_layer(64, 128, 4, stride=2)
        self.encoder3 = basic_layer(128, 256, 6, stride=2)
        self.encoder4 = basic_layer(256, 512, 3, stride=2)
        for stage in (5, 6):
            for k in (1, 2, 3):
                self.add_module(f"resb{stage}_{k}", BasicBlock(512, 512))
        self._add_stage("bg", 512, 512, 512, (2, 2, 2))
        for name, (c_in, c_mid, c_out, dilations) in _DECODER.items():
            self._add_stage(name, c_in, c_mid, c_out, dilations)
        for name, channels in zip("b654321", (512, 512, 512, 256, 128, 64, 64), strict=True):
            self.add_module(f"outconv{name}", nn.Conv2d(channels, 1, 3, padding=1))
        self.refunet = RefUnet()
        self.register_load_state_dict_pre_hook(_fill_untrained_norm)

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        require_multiple_of_32(x_NCHW, "BASNet")
        skips = self._encode(x_NCHW)
        x = bridge = self._stage("bg", skips[-1])
        maps = [upsample(self.get_submodule("outconvb")(bridge), 32)]
        for k in range(6, 0, -1):
            x = torch.cat((x, skips[k - 1]), 1) if k == 6 else concat_upsampled(x, skips[k - 1])
            x = self._stage(f"{k}d", x)
            side = self.get_submodule(f"outconv{k}")(x)
            maps.insert(0, side if k == 1 else upsample(side, 2 ** (k - 1)))
        bridge_map = maps.pop()
        return [self.refunet(maps[0]), *maps, bridge_map]

    def _encode(self, x: Tensor) -> list[Tensor]:
        """Return the six encoder maps, at 1, 1/2, 1/4, 1/8, 1/16 and 1/32 of the input."""
        x = conv_norm_relu(self.inconv, self.inbn, x)
        levels = []
        for k in range(1, 5):
            x = self.get_submodule(f"encoder{k}")(x)
            levels.append(x)
        for k in (5, 6):
            x = max_pool(x)
            for block in (1, 2, 3):
                x = self.get_submodule(f"resb{k}_{block}")(x)
            levels.append(x)
        return levels

    def _add_stage(self, name: str, c_in: int, c_mid: int, c_out: int, dilations: tuple[int, int, int]) -> None:
        channels = ((c_in, c_mid), (c_mid, c_mid), (c_mid, c_out))
        for part, (c_from, c_to), dilation in zip("1m2", channels, dilations, strict=True):
            self.add_module(f"conv{name}_{part}", nn.Conv2d(c_from, c_to, 3, padding=dilation, dilation=dilation))
            self.add_module(f"bn{name}_{part}", nn.BatchNorm2d(c_to))

    def _stage(self, name: str, x: Tensor) -> Tensor:
        for part in "1m2":
            x = conv_norm_relu(self.get_submodule(f"conv{name}_{part}"), self.get_submodule(f"bn{name}_{part}"), x)
        return x


class RefUnet(nn.Module):
    """A four-level U-Net of 64 channels that adds a residual to a logit map ``(N, 1, H, W)``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(1, 64, 3, padding=1)
        for k in range(1, 6):
            self.add_module(f"conv{k}", nn.Conv2d(64, 64, 3, padding=1))
            self.add_module(f"bn{k}", nn.BatchNorm2d(64))
        for k in range(4, 0, -1):
            self.add_module(f"conv_d{k}", nn.Conv2d(128, 64, 3, padding=1))
            self.add_module(f"bn_d{k}", nn.BatchNorm2d(64))
        self.conv_d0 = nn.Conv2d(64, 1, 3, padding=1)

    def forward(self, logits: Tensor) -> Tensor:
        x = self.conv0(logits)
        levels = []
        for k in range(1, 6):
            x = self._conv_bn_relu(str(k), x if k == 1 else max_pool(x))
            levels.append(x)
        for k in range(4, 0, -1):
            x = self._conv_bn_relu(f"_d{k}", concat_upsampled(x, levels[k - 1]))
        return logits + self.conv_d0(x)

    def _conv_bn_relu(self, name: str, x: Tensor) -> Tensor:
        return conv_norm_relu(self.get_submodule(f"conv{name}"), self.get_submodule(f"bn{name}"), x)


def _fill_untrained_norm(_module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    # Until September 2019 the authors' forward ran stage 6d's last normalisation through bn5d_2 and left bn6d_2 untouched
    # (xuebinqin/BASNet#12). Weights from that time are right when bn6d_2 takes over what bn5d_2 holds.
    old, new = f"{prefix}bn5d_2.", f"{prefix}bn6d_2."
    mean, var = state.get(f"{new}running_mean"), state.get(f"{new}running_var")
    if mean is not None and var is not None and not mean.any() and bool((var == 1).all()):
        state.update({new + key.removeprefix(old): value for key, value in list(state.items()) if key.startswith(old)})


CONFIGS = (
    NetworkConfig(
        name="basnet",
        constructor=BASNet,
        size_hw=(256, 256),
        preprocessing=AUTHORS_IMAGENET,
        outputs=("refined", "d1", "d2", "d3", "d4", "d5", "d6", "db"),
        num_parameters=87_060_360,
        repository="xuebinqin/BASNet",
        licence="MIT",
        paper=Paper("BASNet: Boundary-Aware Salient Object Detection", "CVPR 2019"),
        speeds=(
            Speed(25, (256, 256), "GTX 1080 Ti", "CVPR 2019 abstract: more than 25 fps"),
            Speed(70, (256, 256), "", "the authors' follow-up, arXiv 2101.04704: over 70 fps on a single GPU"),
        ),
    ),
)
