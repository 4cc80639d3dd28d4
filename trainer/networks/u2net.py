"""U²-Net, U²-NetP and a faster U²-NetP of this project's own: nested U-structures that keep resolution inside every stage.

Architecture and key names follow the authors' release (Qin et al., "U²-Net: Going Deeper with Nested U-Structure for
Salient Object Detection", Pattern Recognition 106, 2020, arXiv 2005.09007), so that the official ``u2net.pth`` and
``u2netp.pth`` load by name. Two things differ on purpose: the heads return logits (sigmoid is applied at the edge), and
upsampling is by a fixed factor of two, which is the same arithmetic for inputs that are multiples of 32 and leaves no
shape arithmetic in an exported graph.

Tensor legend: ``x_NCHW`` float, RGB, normalised as the recipe says.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.kernels import concat_upsampled, conv_norm_relu, max_pool, upsample

from .config import AUTHORS_IMAGENET, NetworkConfig, Paper, Speed
from .layers import require_multiple_of_32

# (block depth, in, mid, out) of the eleven stages; depth 0 is the dilated RSU-4F.
_FULL = {
    "stage1": (7, 3, 32, 64),
    "stage2": (6, 64, 32, 128),
    "stage3": (5, 128, 64, 256),
    "stage4": (4, 256, 128, 512),
    "stage5": (0, 512, 256, 512),
    "stage6": (0, 512, 256, 512),
    "stage5d": (0, 1024, 256, 512),
    "stage4d": (4, 1024, 128, 256),
    "stage3d": (5, 512, 64, 128),
    "stage2d": (6, 256, 32, 64),
    "stage1d": (7, 128, 16, 64),
}
_SMALL = {
    "stage1": (7, 3, 16, 64),
    "stage2": (6, 64, 16, 64),
    "stage3": (5, 64, 16, 64),
    "stage4": (4, 64, 16, 64),
    "stage5": (0, 64, 16, 64),
    "stage6": (0, 64, 16, 64),
    "stage5d": (0, 128, 16, 64),
    "stage4d": (4, 128, 16, 64),
    "stage3d": (5, 128, 16, 64),
    "stage2d": (6, 128, 16, 64),
    "stage1d": (7, 128, 16, 64),
}
_FAST = {name: channels for name, channels in _SMALL.items() if name != "stage1d"}


class U2Net(nn.Module):
    """The two-level nested U-structure with a side output per decoder stage and one fused output.

    Args:
        stages: ``(depth, in, mid, out)`` channels of each of the eleven stages, by name. Without ``stage1d``, the last one,
            there is no ``side1`` either.

    ``forward`` takes float ``(N, 3, H, W)`` with H and W multiples of 32 and returns seven logit maps
    ``(N, 1, H, W)``: the fused ``d0`` first, then the side outputs ``d1`` … ``d6``; six without ``d1`` where ``stage1d`` is
    left out.
    """

    def __init__(self, stages: dict[str, tuple[int, int, int, int]]) -> None:
        super().__init__()
        for name, (depth, c_in, c_mid, c_out) in stages.items():
            self.add_module(name, RSU(depth, c_in, c_mid, c_out) if depth else RSU4F(c_in, c_mid, c_out))
        self.first_side = 1 if "stage1d" in stages else 2
        for k in range(self.first_side, 7):
            channels = stages[f"stage{k}d" if k < 6 else "stage6"][3]
            self.add_module(f"side{k}", nn.Conv2d(channels, 1, 3, padding=1))
        self.outconv = nn.Conv2d(7 - self.first_side, 1, 1)

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        require_multiple_of_32(x_NCHW, "U²-Net")
        encoder = []
        x = x_NCHW
        for k in range(1, 7):
            x = self.get_submodule(f"stage{k}")(x)
            encoder.append(x)
            if k < 6:
                x = max_pool(x)
        sides = [self.get_submodule("side6")(x)]
        for k in range(5, self.first_side - 1, -1):
            x = self.get_submodule(f"stage{k}d")(concat_upsampled(x, encoder[k - 1]))
            sides.insert(0, self.get_submodule(f"side{k}")(x))
        maps = [side if k == 1 else upsample(side, 2 ** (k - 1)) for k, side in enumerate(sides, self.first_side)]
        return [self.outconv(torch.cat(maps, 1)), *maps]

    def adapt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a state dict as this network takes it: a whole network's without its last stage where this one has none."""
        fuse = state.get("outconv.weight")
        is_whole = fuse is not None and fuse.shape == (1, 6, 1, 1)
        return without_last_stage(state) if is_whole and self.first_side == 2 else state


class RSU(nn.Module):
    """A residual U-block of ``depth`` levels: pools depth − 2 times, its last level is dilated."""

    def __init__(self, depth: int, c_in: int, c_mid: int, c_out: int) -> None:
        super().__init__()
        self.depth = depth
        self.rebnconvin = ConvBnRelu(c_in, c_out)
        for k in range(1, depth):
            self.add_module(f"rebnconv{k}", ConvBnRelu(c_out if k == 1 else c_mid, c_mid))
        self.add_module(f"rebnconv{depth}", ConvBnRelu(c_mid, c_mid, dilation=2))
        for k in range(depth - 1, 0, -1):
            self.add_module(f"rebnconv{k}d", ConvBnRelu(2 * c_mid, c_out if k == 1 else c_mid))

    def forward(self, x: Tensor) -> Tensor:
        residual = x = self.rebnconvin(x)
        levels = []
        for k in range(1, self.depth):
            x = self.get_submodule(f"rebnconv{k}")(x if k == 1 else max_pool(x))
            levels.append(x)
        x = self.get_submodule(f"rebnconv{self.depth}")(x)
        for k in range(self.depth - 1, 0, -1):
            skip = levels[k - 1]
            x = torch.cat((x, skip), 1) if k == self.depth - 1 else concat_upsampled(x, skip)
            x = self.get_submodule(f"rebnconv{k}d")(x, residual if k == 1 else None)
        return x


class RSU4F(nn.Module):
    """The four-level block of the deepest stages: dilation 1, 2, 4, 8 in place of pooling."""

    def __init__(self, c_in: int, c_mid: int, c_out: int) -> None:
        super().__init__()
        self.rebnconvin = ConvBnRelu(c_in, c_out)
        self.rebnconv1 = ConvBnRelu(c_out, c_mid)
        self.rebnconv2 = ConvBnRelu(c_mid, c_mid, dilation=2)
        self.rebnconv3 = ConvBnRelu(c_mid, c_mid, dilation=4)
        self.rebnconv4 = ConvBnRelu(c_mid, c_mid, dilation=8)
        self.rebnconv3d = ConvBnRelu(2 * c_mid, c_mid, dilation=4)
        self.rebnconv2d = ConvBnRelu(2 * c_mid, c_mid, dilation=2)
        self.rebnconv1d = ConvBnRelu(2 * c_mid, c_out)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.rebnconvin(x)
        level1 = self.rebnconv1(residual)
        level2 = self.rebnconv2(level1)
        level3 = self.rebnconv3(level2)
        x = self.rebnconv4(level3)
        x = self.rebnconv3d(torch.cat((x, level3), 1))
        x = self.rebnconv2d(torch.cat((x, level2), 1))
        return self.rebnconv1d(torch.cat((x, level1), 1), residual)


class ConvBnRelu(nn.Module):
    """3×3 convolution, batch normalisation, ReLU, under the authors' key names."""

    def __init__(self, c_in: int, c_out: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv_s1 = nn.Conv2d(c_in, c_out, 3, padding=dilation, dilation=dilation)
        self.bn_s1 = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return conv_norm_relu(self.conv_s1, self.bn_s1, x, residual)


def u2net() -> U2Net:
    """U²-Net, 44,009,869 parameters."""
    return U2Net(_FULL)


def u2netp() -> U2Net:
    """U²-NetP, the small version, 1,131,181 parameters."""
    return U2Net(_SMALL)


def u2netp_fast() -> U2Net:
    """U²-NetP without its last decoder stage, 991,403 parameters: this project's own variant, not a published network.

    That stage works at full size and has half of all multiplications.
    """
    return U2Net(_FAST)


def without_last_stage(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn the state dict of a U²-NetP into that of a :func:`u2netp_fast`.

    ``stage1d`` and ``side1`` are dropped. In the trained sum of the side maps the second, of half the size, stands in for the
    first: it gets the weights of both. All other values are as they were, so the maps d2 … d6 stay the same.
    """
    fuse = state["outconv.weight"].float()  # a stored sum of halves would be rounded once more
    kept = {key: value for key, value in state.items() if not key.startswith(("stage1d.", "side1."))}
    return kept | {"outconv.weight": torch.cat((fuse[:, :1] + fuse[:, 1:2], fuse[:, 2:]), 1)}


_PAPER = Paper(
    "U²-Net: Going Deeper with Nested U-Structure for Salient Object Detection", "Pattern Recognition 106, 2020", "2005.09007"
)
_OUTPUTS = ("d0", "d1", "d2", "d3", "d4", "d5", "d6")

CONFIGS = (
    NetworkConfig(
        name="u2net",
        constructor=u2net,
        size_hw=(320, 320),
        preprocessing=AUTHORS_IMAGENET,
        outputs=_OUTPUTS,
        num_parameters=44_009_869,
        repository="xuebinqin/U-2-Net",
        licence="Apache-2.0",
        paper=_PAPER,
        speeds=(Speed(30, (320, 320), "GTX 1080 Ti", "arXiv 2005.09007 abstract"),),
    ),
    NetworkConfig(
        name="u2netp",
        constructor=u2netp,
        size_hw=(320, 320),
        preprocessing=AUTHORS_IMAGENET,
        outputs=_OUTPUTS,
        num_parameters=1_131_181,
        repository="xuebinqin/U-2-Net",
        licence="Apache-2.0",
        paper=_PAPER,
        speeds=(Speed(40, (320, 320), "GTX 1080 Ti", "arXiv 2005.09007 abstract"),),
    ),
    NetworkConfig(
        name="u2netp-fast",
        constructor=u2netp_fast,
        size_hw=(320, 320),
        preprocessing=AUTHORS_IMAGENET,
        outputs=tuple(output for output in _OUTPUTS if output != "d1"),
        num_parameters=991_403,
        repository="",
        licence="",
        paper=_PAPER,
        derived_from="u2netp",
    ),
)
