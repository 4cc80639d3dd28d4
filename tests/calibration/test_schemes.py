"""What the CPU scheme leaves in float: maps beside features, and the residual path of pre-activation networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from edgesod.calibration import calibrate
from edgesod.calibration.qdq import write_qdq
from edgesod.export.torch_export import export_onnx
from edgesod.recipe import RangeMethod, Recipe

BOUND = 0.05  # with the map in the scale of the features it would be 0.56


class Refinement(nn.Module):
    """A coarse map of two channels beside features a hundred times as large, and a convolution that sees both, as in SRM."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.more = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.coarse, self.classify = nn.Conv2d(16, 2, 1), nn.Conv2d(18, 1, 1)
        with torch.no_grad():
            self.coarse.weight.mul_(0.01)
            self.coarse.bias.zero_()
            self.classify.weight[:, 2:].mul_(0.001)

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        features = torch.relu(self.features(x_NCHW))
        coarse = F.interpolate(self.coarse(F.max_pool2d(features, 2)), scale_factor=2.0, mode="bilinear", align_corners=False)
        return [self.classify(torch.cat((coarse, torch.relu(self.more(features))), 1))]


class PreActivation(nn.Module):
    """Residual blocks that normalise before they convolve, as SRM's do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 1, 1)
        self.convs = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(4))
        self.norms = nn.ModuleList(nn.BatchNorm2d(16) for _ in range(5))
        for norm in self.norms:
            nn.init.uniform_(norm.running_var, 0.2, 5.0)

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        x = self.first(x_NCHW)
        for conv, norm in zip(self.convs, self.norms[:-1], strict=True):
            x = conv(torch.relu(norm(x))) + x
        return [self.last(torch.relu(self.norms[-1](x)))]


@pytest.mark.parametrize("method", ["minmax", "percentile-99.999"])
def test_a_map_beside_large_features_keeps_its_steps(
    photographs: Path, inputs: list[NDArray[np.float32]], recipe: Recipe, tmp_path: Path, method: RangeMethod
) -> None:
    torch.manual_seed(0)
    graph = quantised(Refinement(), photographs, recipe, tmp_path, method)
    assert {node.op_type for node in graph.node} >= {"QuantizeLinear", "Concat", "Resize"}
    for drift in drifts(tmp_path, inputs):
        assert 0 < drift < BOUND


def test_a_residual_path_that_is_normalised_is_not_rounded(
    photographs: Path, inputs: list[NDArray[np.float32]], recipe: Recipe, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    graph = quantised(PreActivation(), photographs, recipe, tmp_path, "percentile-99.999")
    rounded = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    sums = [node for node in graph.node if node.op_type == "Add"]
    assert len(sums) == 4
    assert not rounded.intersection(name for node in sums for name in [*node.input, *node.output])
    assert sum(node.op_type == "Relu" and node.output[0] in rounded for node in graph.node) == 4  # what convolutions read
    for drift in drifts(tmp_path, inputs):
        assert 0 < drift < BOUND


def quantised(module: nn.Module, photographs: Path, recipe: Recipe, folder: Path, method: RangeMethod) -> onnx.GraphProto:
    """Write a network as FP32 and INT8 ONNX, and return the second."""
    export_onnx(module.eval(), recipe.size_hw, folder / "fp32.onnx")
    table = calibrate(folder / "fp32.onnx", recipe, photographs)
    write_qdq(folder / "fp32.onnx", folder / "int8.onnx", table, method, scheme="cpu")
    return onnx.load(folder / "int8.onnx").graph


def drifts(folder: Path, inputs: list[NDArray[np.float32]]) -> list[float]:
    """Mean absolute difference of INT8's maps from FP32's, as a share of these maps' standard deviation."""
    fp32, int8 = (onnxruntime.InferenceSession(folder / name) for name in ("fp32.onnx", "int8.onnx"))
    pairs = [[session.run(None, {"image": image})[0] for session in (fp32, int8)] for image in inputs]
    return [float(np.abs(found - expected).mean() / expected.std()) for expected, found in pairs]
