"""Torch networks become ONNX files that compute the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import parser
from skimage import data
from torch import Tensor, nn
from torch.nn import functional as F

from edgesod.errors import BackendError, CheckFailed, InputError
from edgesod.export import export_model
from edgesod.export.parity import check_parity
from edgesod.export.simplify import simplify_onnx
from edgesod.export.torch_export import export_onnx
from edgesod.processing.preprocess import preprocess
from edgesod.recipe import Recipe
from trainer import networks

SIZE_HW = (32, 64)
SHAPE_OPERATORS = {"Shape", "Gather", "Unsqueeze", "Squeeze", "Slice", "Cast", "Reshape", "Div", "Floor"}


class Tiny(nn.Module):
    """Two maps; its upsampling asks for the size of another tensor, which leaves shape arithmetic in a plain export."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.heads = nn.ModuleList([nn.Conv2d(4, 1, 1), nn.Conv2d(4, 1, 3, padding=1)])

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        features = self.encoder(x_NCHW)
        features = F.interpolate(F.max_pool2d(features, 2), size=x_NCHW.shape[-2:], mode="bilinear", align_corners=False)
        return [head(features) for head in self.heads]


class TinySoftmax(Tiny):
    """Its two maps are background and object."""

    def saliency(self, outputs: list[Tensor]) -> Tensor:
        return torch.softmax(torch.cat(outputs, 1), 1)[:, 1:]


@pytest.fixture
def tiny() -> Tiny:
    torch.manual_seed(0)
    return Tiny()


@pytest.fixture(scope="module")
def sample() -> NDArray[np.float32]:
    return photograph(SIZE_HW)


def photograph(size_hw: tuple[int, int]) -> NDArray[np.float32]:
    recipe = Recipe(model="tiny", size_hw=size_hw, precision="fp32")
    return preprocess(np.ascontiguousarray(data.chelsea()[:, :, ::-1]), recipe)


def run(path: Path, image: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    output: NDArray[np.float32] = session.run(["saliency"], {"image": image})[0]
    return output


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


def test_an_export_is_opset_17_of_fixed_shape_and_computes_what_torch_does(
    tiny: Tiny, sample: NDArray[np.float32], tmp_path: Path
) -> None:
    path = tmp_path / "folder" / "tiny.onnx"
    report = export_model(tiny, SIZE_HW, path, sample)
    model = onnx.load(path)
    assert (model.ir_version, [entry.version for entry in model.opset_import]) == (8, [17])
    assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, *SIZE_HW]
    assert not operators(path) & SHAPE_OPERATORS
    with torch.no_grad():
        expected = torch.sigmoid(tiny.eval()(torch.from_numpy(sample))[0]).numpy()
    assert report.largest < 1e-5
    np.testing.assert_allclose(run(path, sample), expected, atol=1e-5)


def test_export_leaves_the_network_as_it_was(tiny: Tiny, sample: NDArray[np.float32], tmp_path: Path) -> None:
    tiny.heads.eval()
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    export_model(tiny, SIZE_HW, tmp_path / "tiny.onnx", sample)
    assert tiny.training
    assert tiny.encoder.training
    assert not tiny.heads.training
    assert all(torch.equal(value, before[name]) for name, value in tiny.state_dict().items())


def test_a_network_may_name_another_map(tiny: Tiny, sample: NDArray[np.float32], tmp_path: Path) -> None:
    tiny.export_index = 1
    export_model(tiny, SIZE_HW, tmp_path / "tiny.onnx", sample)
    with torch.no_grad():
        expected = torch.sigmoid(tiny.eval()(torch.from_numpy(sample))[1]).numpy()
    np.testing.assert_allclose(run(tmp_path / "tiny.onnx", sample), expected, atol=1e-5)


def test_a_network_may_make_its_own_map(sample: NDArray[np.float32], tmp_path: Path) -> None:
    network = TinySoftmax()
    export_model(network, SIZE_HW, tmp_path / "tiny.onnx", sample)
    assert "Sigmoid" not in operators(tmp_path / "tiny.onnx")
    with torch.no_grad():
        expected = torch.softmax(torch.cat(network.eval()(torch.from_numpy(sample)), 1), 1)[:, 1:].numpy()
    np.testing.assert_allclose(run(tmp_path / "tiny.onnx", sample), expected, atol=1e-5)


def test_u2netp_exports_without_shape_arithmetic(tmp_path: Path) -> None:
    torch.manual_seed(0)
    report = export_model(networks.create("u2netp"), (64, 64), tmp_path / "u2netp.onnx", photograph((64, 64)))
    assert report.largest < 1e-5
    assert not operators(tmp_path / "u2netp.onnx") & SHAPE_OPERATORS
    assert sum(node.op_type == "Conv" for node in onnx.load(tmp_path / "u2netp.onnx").graph.node) == 119


def test_a_size_the_network_refuses_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"40×40.*multiples of 32"):
        export_model(networks.create("u2netp"), (40, 40), tmp_path / "u2netp.onnx", photograph((40, 40)))
    assert not list(tmp_path.iterdir())


def test_a_sample_of_another_size_is_an_input_error(tiny: Tiny, sample: NDArray[np.float32], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\(1, 3, 32, 64\)"):
        export_model(tiny, (64, 64), tmp_path / "tiny.onnx", sample)


def test_parity_fails_on_a_difference_and_on_what_is_not_a_number(
    tiny: Tiny, sample: NDArray[np.float32], tmp_path: Path
) -> None:
    path = tmp_path / "tiny.onnx"
    export_onnx(tiny, SIZE_HW, path)
    right = run(path, sample)
    assert check_parity(right, path, path, sample).largest == 0
    for wrong in (right + np.float32(1e-3), np.full_like(right, np.nan)):
        with pytest.raises(CheckFailed, match="exported ONNX differs"):
            check_parity(wrong, path, path, sample)


def test_nothing_is_written_when_parity_fails(
    tiny: Tiny, sample: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgesod.export.torch_export.run_torch", lambda *_: np.zeros((1, 1, *SIZE_HW), np.float32))
    with pytest.raises(CheckFailed):
        export_model(tiny, SIZE_HW, tmp_path / "tiny.onnx", sample)
    assert not list(tmp_path.iterdir())


class Rounding(nn.Module):
    """Its logit is off by ``error`` in FP32 alone."""

    def __init__(self, error: float) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 1, 1)
        self.error = error

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        logits = self.head(x_NCHW)
        return [logits + self.error if logits.dtype == torch.float32 and not torch.onnx.is_in_onnx_export() else logits]


@pytest.mark.parametrize("error", [1e-3, 1e-2])
def test_twice_the_rounding_of_fp32_passes_parity_and_nothing_else_does(
    error: float, sample: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, path = Rounding(error), tmp_path / "rounding.onnx"
    report = export_model(network, SIZE_HW, path, sample)
    assert report.largest == pytest.approx(error / 4, rel=0.05), "the sigmoid's slope is a quarter where it is steepest"
    np.testing.assert_allclose(
        run(path, sample), torch.sigmoid(network.double()(torch.from_numpy(sample).double())[0]).detach(), atol=1e-6
    )
    path.unlink()
    monkeypatch.setattr("edgesod.export.torch_export.rounding_of", lambda *_: error / 9)
    with pytest.raises(CheckFailed):
        export_model(Rounding(error), SIZE_HW, path, sample)
    assert not path.exists()


def test_more_than_a_grey_level_never_passes_however_coarse_fp32_is(sample: NDArray[np.float32], tmp_path: Path) -> None:
    assert export_model(Rounding(1.2e-2), SIZE_HW, tmp_path / "fine.onnx", sample).largest < 1 / 255
    with pytest.raises(CheckFailed, match=r"bound 0\.0039"):  # off by as much as it is coarse, so twice that would pass
        export_model(Rounding(0.1), SIZE_HW, tmp_path / "coarse.onnx", sample)
    assert [path.name for path in tmp_path.iterdir()] == ["fine.onnx"]


def test_when_onnxsim_fails_the_plain_file_is_kept(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: onnx.ModelProto) -> None:
        raise RuntimeError("no such operator")

    export_onnx(tiny, SIZE_HW, tmp_path / "plain.onnx")
    monkeypatch.setattr("onnxsim.simplify", fail)
    simplify_onnx(tmp_path / "plain.onnx", tmp_path / "simplified.onnx")
    assert onnx.load(tmp_path / "simplified.onnx") == onnx.load(tmp_path / "plain.onnx")
    assert "no such operator" in caplog.text


@pytest.mark.parametrize("opset", [17, 18])
def test_a_torch_without_the_legacy_exporter_uses_the_other(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opset: int
) -> None:
    def export(_network: nn.Module, _args: tuple[Tensor], path: str, **options: Any) -> None:
        if "dynamo" in options:
            raise TypeError("export() got an unexpected keyword argument 'dynamo'")
        text = f'<ir_version: 10, opset_import: ["":{opset}]> g (float[1,1,2,2] image) => (float[1,1,2,2] saliency)'
        onnx.save(parser.parse_model(text + "{ saliency = Sigmoid(image) }"), path)

    monkeypatch.setattr(torch.onnx, "export", export)
    path = tmp_path / "tiny.onnx"
    if opset == 17:
        export_onnx(tiny, SIZE_HW, path)
        assert onnx.load(path).ir_version == 8
    else:
        with pytest.raises(BackendError, match="opset 18"):
            export_onnx(tiny, SIZE_HW, path)
        assert not path.exists()
