"""Weights from files: what is taken, what is refused, and that nothing in a file is ever run."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgesod.errors import InputError, UsageError
from trainer import networks

State = dict[str, Tensor]


@pytest.fixture
def network() -> nn.Module:
    return networks.create("u2netp")


def _other_state() -> State:
    """Return a state dict of U²-NetP in which no two tensors are alike."""
    generator = torch.Generator().manual_seed(1)
    return {
        key: torch.rand(value.shape, generator=generator) if value.is_floating_point() else torch.tensor(7)
        for key, value in networks.create("u2netp").state_dict().items()
    }


def _assert_same(state: State, expected: State) -> None:
    assert state.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(state[key], value), key


def test_round_trip_through_safetensors(network: nn.Module, tmp_path: Path) -> None:
    state = _other_state()
    save_file(state, tmp_path / "weights.safetensors")
    networks.load_weights(network, tmp_path / "weights.safetensors")
    _assert_same(network.state_dict(), state)


@pytest.mark.parametrize("zipped", [True, False])
def test_round_trip_through_pth(network: nn.Module, tmp_path: Path, zipped: bool) -> None:
    state = _other_state()
    torch.save(state, tmp_path / "weights.pth", _use_new_zipfile_serialization=zipped)
    networks.load_weights(network, str(tmp_path / "weights.pth"))
    _assert_same(network.state_dict(), state)


def test_prefix_of_data_parallel_and_missing_counters_are_tolerated(network: nn.Module, tmp_path: Path) -> None:
    counters = {key: value.clone() for key, value in network.state_dict().items() if key.endswith("num_batches_tracked")}
    state = {key: value for key, value in _other_state().items() if key not in counters}
    assert len(state) == 686
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "weights.pth")
    networks.load_weights(network, tmp_path / "weights.pth")
    _assert_same(network.state_dict(), network.state_dict() | state | counters)


def _without_one(state: State) -> State:
    del state["outconv.bias"]
    return state


def _with_another(state: State) -> State:
    return state | {"outconv2.bias": torch.zeros(1)}


def _of_another_shape(state: State) -> State:
    return state | {"outconv.bias": torch.zeros(2)}


def _half_prefixed(state: State) -> State:
    return {f"module.{key}" if key.startswith("stage1.") else key: value for key, value in state.items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without_one, r"1 keys missing \['outconv.bias'\], 0 unknown"),
        (_with_another, r"0 keys missing \[\], 1 unknown \['outconv2.bias'\]"),
        (_of_another_shape, r"1 of another shape \['outconv.bias'\]"),
        (_half_prefixed, r"[1-9]\d* keys missing .* [1-9]\d* unknown"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(
    network: nn.Module, tmp_path: Path, change: Callable[[State], State], words: str
) -> None:
    before = {key: value.clone() for key, value in network.state_dict().items()}
    save_file(change(_other_state()), tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=words) as caught:
        networks.load_weights(network, tmp_path / "weights.safetensors")
    assert "--model" in caught.value.hint
    _assert_same(network.state_dict(), before)


class _Payload:
    """Unpickles to a call that leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_code_in_a_pickle_is_not_run(network: nn.Module, tmp_path: Path, write: Callable[[object, Path], None]) -> None:
    trace = tmp_path / "trace"
    write({"stage1": _Payload(trace)}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="cannot be read as a state dict") as caught:
        networks.load_weights(network, tmp_path / "weights.pth")
    assert not trace.exists()
    assert "state dict" in caught.value.hint


@pytest.mark.parametrize(
    "value", [[torch.zeros(1)], {}, {"epoch": 3}, {"state_dict": {"outconv.bias": torch.zeros(1)}}, torch.zeros(3)]
)
def test_a_pickle_of_something_else_is_refused(network: nn.Module, tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="not a state dict"):
        networks.load_weights(network, tmp_path / "weights.pth")


def test_a_whole_pickled_network_is_refused(network: nn.Module, tmp_path: Path) -> None:
    torch.save(network, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="cannot be read as a state dict"):
        networks.load_weights(network, tmp_path / "weights.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"weights", b"PK\x03\x04", b"\x80\x02.", b"0.", bytes(range(256)), b"<html></html>"])
def test_damaged_files_are_refused(network: nn.Module, tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as a state dict"):
        networks.load_weights(network, path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_half_a_file_is_refused(network: nn.Module, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(_other_state(), path)
    else:
        save_file(_other_state(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="cannot be read as a state dict"):
        networks.load_weights(network, path)


def test_a_file_that_is_not_there(network: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no weights file"):
        networks.load_weights(network, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="is a folder, not a file of weights"):
        networks.load_weights(network, tmp_path)
    (tmp_path / "checkpoint-000000008").mkdir()
    (tmp_path / "checkpoint-000000008" / "ema.safetensors").touch()
    with pytest.raises(InputError) as caught:
        networks.weights_metadata(tmp_path)
    with pytest.raises(InputError) as inside:
        networks.weights_metadata(tmp_path / "checkpoint-000000008")
    assert caught.value.hint == inside.value.hint == f"give {tmp_path / 'checkpoint-000000008' / 'ema.safetensors'}"


def _imagenet(blocks: dict[int, int], convolutions: int, *, projects_first: bool) -> State:
    """Return a stand-in for torchvision's state dict of a ResNet: its key names, and 1 × 1 weights of distinct values."""
    keys = ["conv1.weight", *_norm("bn1"), "fc.weight", "fc.bias"]
    for layer, num in blocks.items():
        for block in range(num):
            prefix = f"layer{layer}.{block}."
            for k in range(1, convolutions + 1):
                keys += [f"{prefix}conv{k}.weight", *_norm(f"{prefix}bn{k}")]
            if block == 0 and (layer > 1 or projects_first):
                keys += [f"{prefix}downsample.0.weight", *_norm(f"{prefix}downsample.1")]
    return {key: torch.tensor(float(k)) for k, key in enumerate(keys)}


def _norm(name: str) -> list[str]:
    return [f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]


_RESNET34 = _imagenet({1: 3, 2: 4, 3: 6, 4: 3}, 2, projects_first=False)
_RESNET50 = _imagenet({1: 3, 2: 4, 3: 6, 4: 3}, 3, projects_first=True)


def _filled(state: State, module: nn.Module, prefixes: dict[str, str]) -> State:
    """Return ``state`` with each value spread over the shape of the network's own tensor, where it has one."""
    shapes = {
        theirs + key.removeprefix(ours): value.shape
        for key, value in module.state_dict().items()
        for ours, theirs in prefixes.items()
        if key.startswith(ours)
    }
    return {key: value.expand(shapes.get(key, (1,))).contiguous() for key, value in state.items()}


def test_basnet_takes_the_layers_of_resnet34(tmp_path: Path) -> None:
    module = networks.create("basnet")
    prefixes = {f"encoder{k}.": f"layer{k}." for k in range(1, 5)}
    save_file(_filled(_RESNET34, module, prefixes), tmp_path / "resnet34.safetensors")
    stem = module.state_dict()["inconv.weight"].clone()
    networks.load_backbone(module, tmp_path / "resnet34.safetensors")
    state = module.state_dict()
    for key, value in _RESNET34.items():
        if key.startswith("layer"):
            assert (state[key.replace("layer", "encoder", 1)] == value).all(), key
    assert torch.equal(state["inconv.weight"], stem)
    assert module.train().get_submodule("encoder1.0.bn1").training
    assert all(p.requires_grad for p in module.parameters())


def test_poolnet_takes_resnet50_and_freezes_its_normalisation(tmp_path: Path) -> None:
    module = networks.create("poolnet")
    torch.save(_filled(_RESNET50, module, {"base.resnet.": ""}), tmp_path / "resnet50.pth")
    networks.load_backbone(module, tmp_path / "resnet50.pth")
    state = module.state_dict()
    for key, value in _RESNET50.items():
        if not key.startswith("fc."):
            assert (state[f"base.resnet.{key}"] == value).all(), key
    module.train()
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    assert not any(norm.training for norm in norms)
    assert sum(p.numel() for p in module.parameters() if not p.requires_grad) == 53_120


def test_another_backbone_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with torch.device("meta"):
        module = networks.create("poolnet")
    save_file({key: torch.zeros(1) for key in _RESNET34}, tmp_path / "resnet34.safetensors")
    with pytest.raises(InputError, match="does not fit the network") as caught:
        networks.load_backbone(module, tmp_path / "resnet34.safetensors")
    assert "Caffe's resnet50" in caught.value.hint
    assert all(p.requires_grad for p in module.parameters())


def test_a_network_without_a_backbone_says_so(network: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="U2Net has no ImageNet backbone"):
        networks.load_backbone(network, tmp_path / "resnet50.pth")
