"""Maps from fewer operations are the same maps, and what the identities do not hold for is left alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional as F

from edgesod import zoo
from edgesod.export.cheap_maps import resize_matrix, write_cheap_maps
from edgesod.export.torch_export import export_onnx
from edgesod.processing.pictures import photograph
from edgesod.processing.preprocess import preprocess
from edgesod.recipe import recipe_for

SIZE_HW = (48, 64)


class Sides(nn.Module):
    """Three side maps at three sizes, fused by a 1×1 convolution: what U²-Net ends in."""

    def __init__(self, channels: int = 16, dilation: int = 1, mode: str = "bilinear") -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.sides = nn.ModuleList(nn.Conv2d(channels, 1, 3, padding=dilation, dilation=dilation) for _ in range(3))
        self.fuse = nn.Conv2d(3, 1, 1)
        self.mode = mode

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        x = torch.relu(self.first(x_NCHW))
        maps = [self.sides[0](x)]
        for k, side in enumerate(list(self.sides)[1:], 1):
            x = F.max_pool2d(x, 2)
            corners = False if self.mode == "bilinear" else None
            maps.append(F.interpolate(side(x), scale_factor=2.0**k, mode=self.mode, align_corners=corners))
        return [self.fuse(torch.cat(maps, 1))]


def run(path: Path, image: NDArray[np.float32]) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    output: NDArray[np.float32] = session.run(None, {"image": image})[0]
    return output


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def exported(folder: Path, network: nn.Module) -> tuple[Path, NDArray[np.float32], NDArray[np.float32]]:
    """Export with random weights; return the file, an input and torch's map of it."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    image = torch.randn(1, 3, *SIZE_HW)
    export_onnx(network.eval(), SIZE_HW, folder / "plain.onnx")
    with torch.no_grad():
        return folder / "plain.onnx", image.numpy(), torch.sigmoid(network(image)[0]).numpy()


def test_side_maps_are_torchs(tmp_path: Path) -> None:
    plain, image, expected = exported(tmp_path, Sides())
    assert np.ptp(expected) > 0.2  # a flat map would agree with anything
    assert write_cheap_maps(plain, tmp_path / "cheap.onnx")
    np.testing.assert_allclose(run(tmp_path / "cheap.onnx", image), expected, atol=2e-6)
    found = operators(tmp_path / "cheap.onnx")
    assert found["Resize"] == 0
    assert found["Conv"] == 4  # the fusing one is gone
    assert found["DepthToSpace"] == 3


def test_the_shipped_network_keeps_its_maps_and_its_tensors(tmp_path: Path) -> None:
    shipped = zoo.shipped("u2netp").onnx
    image = preprocess(photograph(), recipe_for("u2netp", "fp32"))
    assert write_cheap_maps(shipped, tmp_path / "cheap.onnx")
    np.testing.assert_allclose(run(tmp_path / "cheap.onnx", image), run(shipped, image), atol=1e-5)
    before, after = onnx.load(shipped), onnx.load(tmp_path / "cheap.onnx")
    kept = {output for node in before.graph.node if "/stage" in node.name for output in node.output}
    assert kept <= {output for node in after.graph.node for output in node.output}, "a calibration table would not fit"
    assert [entry.key for entry in after.metadata_props] == [entry.key for entry in before.metadata_props]
    assert after.opset_import == before.opset_import
    assert after.ir_version == before.ir_version


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (Sides(channels=8, dilation=2, mode="nearest"), "neither plain convolutions nor linear resizing"),
        (nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 1, 3, padding=0)), "no padding"),
    ],
)
def test_what_does_not_fit_is_left_alone(network: nn.Module, why: str, tmp_path: Path) -> None:
    class Listed(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            out = network(x)
            return out if isinstance(out, list) else [out]

        def __init__(self) -> None:
            super().__init__()
            self.network = network

    plain, _, _ = exported(tmp_path, Listed())
    assert not write_cheap_maps(plain, tmp_path / "cheap.onnx"), why
    assert not (tmp_path / "cheap.onnx").exists()


def test_a_map_that_is_an_output_too_is_not_scaled(tmp_path: Path) -> None:
    plain, image, _ = exported(tmp_path, Sides())
    model = onnx.load(plain)
    side = next(node for node in model.graph.node if node.op_type == "Concat").input[0]
    model.graph.output.append(helper.make_tensor_value_info(side, TensorProto.FLOAT, [1, 1, *SIZE_HW]))
    onnx.save(model, plain)
    assert write_cheap_maps(plain, tmp_path / "cheap.onnx")  # its convolution is still made in blocks
    sessions = [onnxruntime.InferenceSession(path) for path in (plain, tmp_path / "cheap.onnx")]
    for ours, theirs in zip(*(session.run(None, {"image": image}) for session in sessions), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)
    assert operators(tmp_path / "cheap.onnx")["Resize"] == 2


@pytest.mark.parametrize(("small", "large"), [(10, 320), (7, 21), (5, 8), (2, 64)])
def test_resizing_as_a_matrix_is_torchs(small: int, large: int) -> None:
    values = np.random.default_rng(0).normal(size=(1, 1, small)).astype(np.float32)
    expected = F.interpolate(torch.from_numpy(values), size=large, mode="linear", align_corners=False).numpy()
    np.testing.assert_allclose(values @ resize_matrix(small, large).T, expected, atol=1e-6)


def test_shared_weights_are_scaled_for_one_reader_alone(tmp_path: Path) -> None:
    plain, image, _ = exported(tmp_path, Sides())
    model = onnx.load(plain)
    convs = [node for node in model.graph.node if node.op_type == "Conv" and "sides" in node.name]
    for conv in convs[1:]:
        conv.input[1] = convs[0].input[1]
    onnx.save(model, plain)
    write_cheap_maps(plain, tmp_path / "cheap.onnx")
    np.testing.assert_allclose(run(tmp_path / "cheap.onnx", image), run(plain, image), atol=2e-6)


def test_nodes_need_no_names(tmp_path: Path) -> None:
    plain, image, expected = exported(tmp_path, Sides())
    model = onnx.load(plain)
    for node in model.graph.node:
        node.name = ""
    onnx.save(model, plain)
    assert write_cheap_maps(plain, tmp_path / "cheap.onnx")
    np.testing.assert_allclose(run(tmp_path / "cheap.onnx", image), expected, atol=2e-6)
