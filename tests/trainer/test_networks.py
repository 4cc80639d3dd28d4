"""Every registered network: its size, its key names, its shapes, its gradients and its ONNX graph."""

from __future__ import annotations

import copy
import io
import socket
import warnings
from collections.abc import Iterator

import cv2
import numpy as np
import onnx
import onnxruntime
import onnxsim
import pytest
import skimage.data
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgesod import zoo
from edgesod.errors import UsageError
from edgesod.processing.pictures import photograph
from edgesod.processing.preprocess import preprocess
from edgesod.recipe import recipe_for
from trainer import networks
from trainer.kernels import operators
from trainer.networks import layers, srm, u2net

# name → parameters, state-dict keys, smallest size the tests use; from the authors' releases, but SRM's, whose exist for Caffe,
# and u2netp-fast's, which is U²-NetP's less its last decoder stage: 14 blocks of 7 keys, and the head's two
FACTS = {
    "u2net": (44_009_869, 798, 64),
    "u2netp": (1_131_181, 798, 64),
    "u2netp-fast": (991_403, 698, 64),
    "basnet": (87_060_360, 517, 64),
    "poolnet": (68_261_057, 358, 128),
    "bapoolnet": (68_262_213, 366, 128),
    "srm": (53_178_526, 572, 65),
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # maps this small are quicker on one thread, many times so on a busy machine
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=sorted(FACTS))
def named(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    """A network of each name, one in memory at a time."""
    torch.manual_seed(0)
    return request.param, networks.create(request.param)


def test_sizes(named: tuple[str, nn.Module]) -> None:
    name, network = named
    parameters, keys, _ = FACTS[name]
    assert sum(p.numel() for p in network.parameters()) == parameters == networks.config(name).num_parameters
    assert len(network.state_dict()) == keys


def test_key_names_are_the_authors(named: tuple[str, nn.Module]) -> None:
    name, network = named
    if name == "srm":
        pytest.skip("SRM's weights exist for Caffe only")
    expected = {"basnet": _basnet_keys}.get(name, _u2net_keys if name.startswith("u2net") else _poolnet_keys)()
    if name == "poolnet":
        expected |= {"score.score.weight", "score.score.bias"}
    elif name == "bapoolnet":
        expected |= {f"score_layers.{k}.score.{part}" for k in range(5) for part in ("weight", "bias")}
    elif name == "u2netp-fast":
        expected = {key for key in expected if not key.startswith(("stage1d.", "side1."))}
    assert network.state_dict().keys() == expected


def test_forward_and_backward(named: tuple[str, nn.Module]) -> None:
    name, network = named
    size = FACTS[name][2]
    outputs = network.train()(torch.randn(1, 3, size, size))
    assert len(outputs) == len(networks.config(name).outputs)
    assert {tuple(x.shape) for x in outputs} == {(1, 1, size, size)}
    assert min(float(x.detach().min()) for x in outputs) < 0, "logits, not probabilities"
    torch.stack(outputs).square().mean().backward()
    without = [key for key, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    network.zero_grad(set_to_none=True)
    assert without == []


@pytest.mark.slow
def test_export(named: tuple[str, nn.Module]) -> None:
    name, network = named
    photographs = _photographs(FACTS[name][2])
    wrapper = _Saliency(_settled(network, photographs)).eval()
    x = photographs[:1]
    model = onnxsim.simplify(onnx.load_from_string(_exported(wrapper, x)))[0]
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    ops = {node.op_type for node in model.graph.node}
    assert ops <= {
        *("Conv", "Relu", "Add", "Concat", "MaxPool", "AveragePool", "MatMul", "Resize", "Sigmoid", "Constant"),
        *(("BatchNormalization", "Slice", "Sub") if name == "srm" else ()),
    }
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    with torch.inference_mode():
        expected = wrapper(x).numpy()
    assert expected.std() > 0.002, "a flat map would agree with anything"
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_registry() -> None:
    assert networks.names() == sorted(FACTS)
    for name in networks.names():
        record = networks.config(name)
        assert record.name == name
        assert len(set(record.outputs)) == len(record.outputs)
        assert all(0 < s["mae"] < s["max_f"] < 1 for s in record.scores.values())
        assert ("DUTS-TE" in record.scores) == (record.derived_from == ""), "what was published was not this project's variant"
        assert record.derived_from in ("", *networks.names())
    for look_up in (networks.create, networks.config):
        with pytest.raises(UsageError, match="there is no network 'u3net'") as caught:
            look_up("u3net")
        assert "u2netp" in caught.value.hint


def test_creating_a_network_downloads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a network was built with a connection")

    monkeypatch.setattr(socket, "socket", refuse)
    for name in networks.names():
        with torch.device("meta"):
            networks.create(name)


@pytest.mark.parametrize(
    ("name", "size_hw", "rule"),
    [
        ("u2netp", (64, 80), "multiples of 32, got 64×80"),
        ("u2netp", (0, 64), "multiples of 32"),
        ("basnet", (300, 320), "multiples of 32, got 300×320"),
        ("poolnet", (127, 320), "at least 128, got 127×320"),
        ("bapoolnet", (320, 96), "at least 128"),
        ("srm", (64, 353), "at least 65"),
    ],
)
def test_sizes_a_network_cannot_take(name: str, size_hw: tuple[int, int], rule: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=rule):
        networks.create(name)(torch.empty(1, 3, *size_hw))


@pytest.mark.parametrize("name", ["poolnet", "srm"])
@pytest.mark.parametrize("size_hw", [(128, 128), (129, 131), (200, 167), (300, 400), (353, 353)])
def test_networks_that_take_any_size_return_that_size(name: str, size_hw: tuple[int, int]) -> None:
    with torch.device("meta"):
        outputs = networks.create(name).eval()(torch.empty(1, 3, *size_hw))
    assert {x.shape[-2:] for x in outputs} == {torch.Size(size_hw)}


@pytest.mark.parametrize("bins", [1, 3, 5])
@pytest.mark.parametrize("size_hw", [(8, 8), (9, 13), (20, 20), (21, 21), (22, 31), (3, 4)])
def test_pooling_to_bins_is_adaptive_average_pooling(bins: int, size_hw: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size_hw, dtype=torch.float64, requires_grad=True)
    ours, theirs = layers.pool_to_bins(x, bins), F.adaptive_avg_pool2d(x, bins)
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("size", "sides"), [(23, {1: 23, 2: 12, 3: 8, 6: 4}), (45, {1: 45, 2: 23, 3: 15, 6: 8}), (5, {6: 1})])
def test_pooling_by_side_is_average_pooling_that_rounds_up(size: int, sides: dict[int, int]) -> None:
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    for bins, side in sides.items():
        torch.testing.assert_close(layers.pool_by_side(x, bins), F.avg_pool2d(x, side, stride=side, ceil_mode=True))


def test_a_fixed_factor_upsamples_to_the_size_of_the_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = networks.create("u2netp").eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        by_factor = network(x)

        def by_size(x: Tensor, factor: int = 2) -> Tensor:
            size = (x.shape[-2] * factor, x.shape[-1] * factor)
            return F.interpolate(x, size=size, mode="bilinear", align_corners=False)

        for module in (u2net, operators):  # of the side maps, and in front of a skip
            monkeypatch.setattr(module, "upsample", by_size)
        for ours, theirs in zip(by_factor, network(x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_u2netp_fast_is_u2netp_with_the_second_map_in_place_of_the_first() -> None:
    weights = zoo.shipped("u2netp").weights
    whole, fast = networks.create("u2netp").eval(), networks.create("u2netp-fast").eval()
    networks.load_weights(whole, weights)
    networks.load_weights(fast, weights)
    x = torch.from_numpy(preprocess(photograph(), recipe_for("u2netp", "fp32")))[..., 32:224, 32:256]
    with torch.no_grad():
        d1, d2, *others = whole(x)[1:]
        expected = whole.outconv(torch.cat((d2, d2, *others), 1))
        found, *maps = fast(x)
    assert float(torch.sigmoid(expected).std()) > 0.1
    assert float((d1 - d2).abs().max()) > 0.1, "the two maps are not the same to begin with"
    assert [torch.equal(ours, theirs) for ours, theirs in zip(maps, (d2, *others), strict=True)] == [True] * 5
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_srm_has_the_map_sizes_of_the_release() -> None:
    seen = []
    with torch.device("meta"):
        network = srm.SRM().eval()
        for part in (network.master_head, network.stage2, network.stage3):
            part.register_forward_hook(lambda _module, _x, y: seen.append(tuple(y.shape)))
        network(torch.empty(1, 3, 353, 353))
    assert seen == [(1, 2, 12, 12), (1, 2, 23, 23), (1, 2, 45, 45)]


def test_srm_s_logit_is_the_softmax_of_its_two_scores() -> None:
    torch.manual_seed(0)
    network = srm.SRM().eval()
    scores = []
    network.stage3.register_forward_hook(lambda _module, _x, y: scores.append(y))
    with torch.inference_mode():
        logits = network(torch.randn(1, 3, 97, 129))[0]
    foreground = torch.softmax(layers.resize_to(scores[0], (97, 129)), 1)[:, 1:]
    torch.testing.assert_close(torch.sigmoid(logits), foreground)


def test_poolnet_starts_as_its_paper_says() -> None:
    network = networks.create("poolnet")
    for key in ("base.resnet.layer3.2.conv2.weight", "deep_pool.0.conv_sum.weight", "convert.convert0.4.0.weight"):
        assert float(network.get_parameter(key).detach().std()) == pytest.approx(0.01, rel=0.02)
    assert not network.get_parameter("score.score.bias").any()


def test_frozen_normalisation_stays_frozen_and_learns_otherwise() -> None:
    network = networks.create("poolnet").train()
    norm = network.get_submodule("base.resnet.bn1")
    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        network(x)
    assert norm.running_mean.any()
    networks.freeze_batch_norm(network)
    before = norm.running_mean.clone()
    copied = copy.deepcopy(network).train()
    with torch.no_grad():
        copied(x)
    assert torch.equal(copied.get_submodule("base.resnet.bn1").running_mean, before)
    assert copied.get_submodule("deep_pool").training


def test_basnet_weights_from_before_the_authors_fix() -> None:
    network = networks.create("basnet")
    state = {key: value.clone() for key, value in network.state_dict().items()}
    for part, value in (("weight", 0.5), ("bias", 0.1), ("running_mean", 2.0), ("running_var", 3.0)):
        state[f"bn5d_2.{part}"].fill_(value)
    network.load_state_dict(state)
    assert torch.equal(network.get_buffer("bn6d_2.running_mean"), network.get_buffer("bn5d_2.running_mean"))
    assert (network.get_parameter("bn6d_2.weight") == 0.5).all()
    state["bn6d_2.running_mean"].fill_(1.0)
    network.load_state_dict(state)
    assert (network.get_parameter("bn6d_2.weight") == 1.0).all(), "a trained layer keeps what it holds"


class _Saliency(nn.Module):
    """The exported face of a network: the sigmoid of its first map."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.network(x)[0])


def _exported(module: nn.Module, x: Tensor) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the legacy exporter as such; the tracer's own still raise
        torch.onnx.export(module, (x,), file, opset_version=17, dynamo=False)
    return file.getvalue()


def _photographs(size: int) -> Tensor:
    pictures = (skimage.data.chelsea(), skimage.data.astronaut())
    pixels = np.stack([cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA) for picture in pictures])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def _settled(network: nn.Module, x: Tensor) -> nn.Module:
    """Give an untrained network statistics that fit its weights, and a map that is neither flat nor saturated."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.reset_running_stats()
            part.momentum = None  # one pass sets the average
            part.eps = 0.1  # an untrained network magnifies rounding at each of a hundred normalisations
    network.train()(x)
    logits = network.eval()(x[:1])[0]
    for key, p in network.named_parameters():
        if key.startswith("score"):  # PoolNet's decoder has no normalisation and starts out with next to nothing
            p.copy_(p / logits.std() if key.endswith("weight") else (p - logits.mean()) / logits.std())
    return network


def _norm_keys(name: str) -> set[str]:
    return {f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}


def _conv_keys(name: str) -> set[str]:
    return {f"{name}.weight", f"{name}.bias"}


def _u2net_keys() -> set[str]:
    depths = {"1": 7, "2": 6, "3": 5, "4": 4, "4d": 4, "3d": 5, "2d": 6, "1d": 7} | dict.fromkeys(("5", "6", "5d"), 4)
    keys = _conv_keys("outconv").union(*(_conv_keys(f"side{k}") for k in range(1, 7)))
    for stage, depth in depths.items():
        blocks = ["in", *map(str, range(1, depth + 1)), *(f"{k}d" for k in range(1, depth))]
        for block in blocks:
            keys |= _conv_keys(f"stage{stage}.rebnconv{block}.conv_s1") | _norm_keys(f"stage{stage}.rebnconv{block}.bn_s1")
    return keys


def _basnet_keys() -> set[str]:
    keys = _conv_keys("inconv") | _norm_keys("inbn")
    blocks = [f"encoder{k}.{i}" for k, num in ((1, 3), (2, 4), (3, 6), (4, 3)) for i in range(num)]
    blocks += [f"resb{k}_{i}" for k in (5, 6) for i in (1, 2, 3)]
    for block in blocks:
        for k in (1, 2):
            keys |= {f"{block}.conv{k}.weight"} | _norm_keys(f"{block}.bn{k}")
    for k in (2, 3, 4):
        keys |= {f"encoder{k}.0.downsample.0.weight"} | _norm_keys(f"encoder{k}.0.downsample.1")
    for stage in ("bg", "6d", "5d", "4d", "3d", "2d", "1d"):
        for part in "1m2":
            keys |= _conv_keys(f"conv{stage}_{part}") | _norm_keys(f"bn{stage}_{part}")
    for name in "b654321":
        keys |= _conv_keys(f"outconv{name}")
    keys |= _conv_keys("refunet.conv0") | _conv_keys("refunet.conv_d0")
    for name in ("1", "2", "3", "4", "5", "_d4", "_d3", "_d2", "_d1"):
        keys |= _conv_keys(f"refunet.conv{name}") | _norm_keys(f"refunet.bn{name}")
    return keys


def _poolnet_keys() -> set[str]:
    resnet = "base.resnet."
    keys = {f"{resnet}conv1.weight"} | _norm_keys(f"{resnet}bn1")
    for layer, num in ((1, 3), (2, 4), (3, 6), (4, 3)):
        for block in range(num):
            for k in (1, 2, 3):
                keys |= {f"{resnet}layer{layer}.{block}.conv{k}.weight"} | _norm_keys(f"{resnet}layer{layer}.{block}.bn{k}")
        keys |= {f"{resnet}layer{layer}.0.downsample.0.weight"} | _norm_keys(f"{resnet}layer{layer}.0.downsample.1")
    keys |= {"base.ppms_pre.weight", "base.ppm_cat.0.weight"}
    keys |= {f"base.ppms.{k}.1.weight" for k in range(3)} | {f"base.infos.{k}.0.weight" for k in range(4)}
    for k in range(5):
        keys |= {f"deep_pool.{k}.convs.{i}.weight" for i in range(3)} | {f"deep_pool.{k}.conv_sum.weight"}
    keys |= {f"deep_pool.{k}.conv_sum_c.weight" for k in range(4)} | {f"convert.convert0.{k}.0.weight" for k in range(5)}
    return keys
