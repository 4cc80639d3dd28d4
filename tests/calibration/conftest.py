"""A network with everything a chain of convolutions has between them, photographs, and its calibration table."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage import data
from torch import Tensor, nn
from torch.nn import functional as F

from edgesod.calibration import calibrate
from edgesod.calibration.table import CalibrationTable
from edgesod.export.torch_export import export_onnx
from edgesod.processing.preprocess import preprocess
from edgesod.recipe import Recipe

SIZE_HW = (64, 96)


class Chain(nn.Module):
    """Convolutions with pooling, resizing, concatenation and a residual between them, and two heads fused by a third."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(c, 16, 3, padding=1) for c in (3, 16, 32))
        self.side1, self.side2, self.fuse = nn.Conv2d(16, 1, 3, padding=1), nn.Conv2d(16, 1, 3, padding=1), nn.Conv2d(2, 1, 1)

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        first = torch.relu(self.first(x_NCHW))
        second = F.avg_pool2d(F.max_pool2d(torch.relu(self.second(first)), 2), 2)
        up = F.interpolate(second, scale_factor=4.0, mode="bilinear", align_corners=False)
        third = torch.relu(self.third(torch.cat((up, first), 1))) + first
        side2 = F.interpolate(self.side2(second), scale_factor=4.0, mode="bilinear", align_corners=False)
        return [self.fuse(torch.cat((self.side1(third), side2), 1))]


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return Recipe(model="chain", size_hw=SIZE_HW, precision="int8")


@pytest.fixture(scope="session")
def chain() -> Chain:
    torch.manual_seed(0)
    return Chain().eval()


@pytest.fixture(scope="session")
def chain_onnx(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "chain.onnx"
    export_onnx(chain, SIZE_HW, path)
    return path


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three photographs, one of them in a folder of its own."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "inner").mkdir()
    for name, image in (("cat", data.chelsea()), ("coffee", data.coffee()), ("inner/rocket", data.rocket())):
        cv2.imwrite(str(folder / f"{name}.png"), cv2.resize(image[:, :, ::-1], (200, 150), interpolation=cv2.INTER_AREA))
    return folder


@pytest.fixture(scope="session")
def inputs(photographs: Path, recipe: Recipe) -> list[NDArray[np.float32]]:
    """The photographs' tensors, in the order calibration reads them."""
    return [preprocess(cv2.imread(str(path)), recipe) for path in sorted(photographs.rglob("*.png"))]


@pytest.fixture(scope="session")
def table(chain_onnx: Path, photographs: Path, recipe: Recipe) -> CalibrationTable:
    return calibrate(chain_onnx, recipe, photographs)
