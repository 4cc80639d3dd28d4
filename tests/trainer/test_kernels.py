"""The compiled kernels do what torch's operators do in float64, and step aside where they are not meant for the case."""

from __future__ import annotations

import copy
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from trainer import kernels, networks  # noqa: E402
from trainer.kernels.library import library  # noqa: E402

# asks for the compiler and not for the kernels: where there is one and they do not come out, the tests fail
needs_kernels = pytest.mark.skipif(
    sys.platform != "linux"
    or shutil.which((os.environ.get("CC") or "cc").split()[0]) is None
    or os.environ.get("EDGESOD_KERNELS") == "0",
    reason="needs Linux and a C compiler with OpenMP",
)
TYPES = pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-8}
"""How far results may be off, as a share of the largest; bfloat16's is half of its last digit."""
SHAPES = ((2, 16, 34, 30), (3, 48, 7, 9), (1, 64, 128, 130), (4, 32, 1, 1))


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).contiguous(memory_format=torch.channels_last)


def _norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        norm.weight.copy_(_random(1, channels, 1, 1, seed=1).flatten())
        norm.bias.copy_(_random(1, channels, 1, 1, seed=2).flatten())
    return norm


def _in_double(norm: nn.BatchNorm2d, x: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    norm, x = copy.deepcopy(norm).double(), x.detach().double().requires_grad_()
    y = F.relu(norm(x))
    y.backward(dy.double())
    return y.detach(), x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var


def _assert_close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    assert float((ours - theirs).detach().abs().max()) <= tolerance * float(theirs.detach().abs().max())


@needs_kernels
@TYPES
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_norm_relu_is_torchs_in_float64(shape: tuple[int, ...], threads: int, kind: torch.dtype) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        norm, x, dy = _norm(shape[1]), (_random(*shape) + 2).to(kind).requires_grad_(), _random(*shape, seed=3).to(kind)
        expected = _in_double(norm, x, dy)
        y = kernels.norm_relu(norm, x)
        y.backward(dy)
    finally:
        torch.set_num_threads(before)
    assert "NormRelu" in type(y.grad_fn).__name__
    assert norm.num_batches_tracked == 1
    assert y.dtype == x.grad.dtype == kind
    for ours, theirs in zip((y, x.grad), expected, strict=False):
        _assert_close(ours, theirs, max(1e-5, ROUNDING[kind]))
    found = (norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var)
    for ours, theirs in zip(found, expected[2:], strict=True):
        assert ours.dtype == torch.float32
        _assert_close(ours, theirs, 1e-5)


@needs_kernels
@pytest.mark.parametrize("shape", [(2, 48, 7, 9), (2, 48, 1, 1), (7, 9)], ids=["same", "one pixel", "a plane"])
def test_a_residual_is_added_after_the_relu(shape: tuple[int, ...]) -> None:
    residual = torch.randn(shape, generator=torch.Generator().manual_seed(4))  # the kernel packs it
    norm, x, dy = _norm(48), _random(2, 48, 7, 9).requires_grad_(), _random(2, 48, 7, 9, seed=3)
    residual.requires_grad_()
    without, *expected = _in_double(norm, x, dy)
    y = kernels.norm_relu(norm, x, residual)
    y.backward(dy)
    _assert_close(y, without + residual.double(), 1e-5)
    for ours, theirs in zip((x.grad, norm.weight.grad, norm.bias.grad), expected, strict=False):
        _assert_close(ours, theirs, 1e-5)
    _assert_close(residual.grad, dy.double().sum_to_size(shape), 1e-5)
    conv = nn.Conv2d(48, 48, 1).eval()
    with_both = kernels.conv_norm_relu(conv, norm, x, residual)
    assert torch.equal(with_both, kernels.conv_norm_relu(conv, norm, x) + residual)


@needs_kernels
def test_a_mean_far_from_zero_leaves_the_variance() -> None:
    norm, x = _norm(32), (_random(2, 32, 40, 40) + 3000).requires_grad_()
    expected = _in_double(norm, x, torch.ones_like(x))
    y = kernels.norm_relu(norm, x)
    _assert_close(y, expected[0], 1e-3)  # numbers near 3,000 are 0.0002 apart
    _assert_close(norm.running_var, expected[5], 1e-5)


@needs_kernels
def test_sums_are_exact_where_torchs_drift() -> None:
    norm, x = _norm(16), _random(4, 16, 320, 320) * 3 + 1
    expected = F.batch_norm(x.double(), None, None, norm.weight.double(), norm.bias.double(), training=True).relu()
    with torch.enable_grad():
        ours = kernels.norm_relu(norm, x.requires_grad_())
    _assert_close(ours.detach(), expected.detach(), 1e-6)


@needs_kernels
@pytest.mark.parametrize("part", [slice(0, 16), slice(16, 48)], ids=["first", "last"])
def test_takes_a_part_of_a_concatenations_gradient(part: slice) -> None:
    whole = _random(2, 48, 8, 6, seed=3)
    norm, x = _norm(part.stop - part.start), _random(2, part.stop - part.start, 8, 6).requires_grad_()
    kernels.norm_relu(norm, x).backward(whole[:, part])
    _assert_close(x.grad, _in_double(_norm(x.shape[1]), x, whole[:, part])[1], 1e-5)
    z = _random(2, part.stop - part.start, 16, 12).requires_grad_()
    (theirs,) = torch.autograd.grad(F.max_pool2d(z, 2), z, whole[:, part])
    (ours,) = torch.autograd.grad(kernels.max_pool(z), z, whole[:, part])
    assert torch.equal(ours, theirs)


@needs_kernels
def test_takes_gradients_in_any_order_of_memory() -> None:
    norm, x, dy = _norm(16), _random(2, 16, 8, 6).requires_grad_(), _random(2, 16, 8, 6, seed=3).contiguous()
    kernels.norm_relu(norm, x).backward(dy)
    _assert_close(x.grad, _in_double(_norm(16), x, dy)[1], 1e-5)
    z = _random(2, 16, 16, 12).requires_grad_()
    theirs = torch.autograd.grad(F.max_pool2d(z, 2), z, dy)
    assert torch.equal(torch.autograd.grad(kernels.max_pool(z), z, dy)[0], theirs[0])
    broadcast = dy[:, :, :1, :1].expand_as(dy)
    theirs = torch.autograd.grad(F.max_pool2d(z, 2), z, broadcast)
    assert torch.equal(torch.autograd.grad(kernels.max_pool(z), z, broadcast)[0], theirs[0])


@needs_kernels
@TYPES
@pytest.mark.parametrize("shape", [(2, 16, 34, 30), (3, 48, 8, 2), (1, 64, 128, 130)], ids=str)
def test_max_pool_is_torchs_max_pool_to_the_bit(shape: tuple[int, ...], kind: torch.dtype) -> None:
    x = _random(*shape).round(decimals=0).to(kind).requires_grad_()  # whole numbers: many of four are equal
    dy = _random(shape[0], shape[1], shape[2] // 2, shape[3] // 2, seed=3).to(kind)
    theirs = F.max_pool2d(x, 2)
    ours = kernels.max_pool(x)
    assert "MaxPool2D" not in type(ours.grad_fn).__name__
    assert torch.equal(ours, theirs)
    assert torch.equal(*(torch.autograd.grad(y, x, dy)[0] for y in (ours, theirs)))


@needs_kernels
@TYPES
@pytest.mark.parametrize("shape", [(2, 16, 5, 9), (1, 32, 1, 1), (3, 16, 1, 4), (1, 64, 33, 40)], ids=str)
@pytest.mark.parametrize("beside", [16, 48])
def test_concat_upsampled_is_torchs_in_float64(shape: tuple[int, ...], beside: int, kind: torch.dtype) -> None:
    pictures, channels, height, width = shape
    x = _random(*shape).to(kind).requires_grad_()
    skip = _random(pictures, beside, 2 * height, 2 * width, seed=1).to(kind).requires_grad_()
    dy = _random(pictures, channels + beside, 2 * height, 2 * width, seed=2).to(kind)
    doubles = [tensor.detach().double().requires_grad_() for tensor in (x, skip)]
    theirs = torch.cat((F.interpolate(doubles[0], scale_factor=2.0, mode="bilinear", align_corners=False), doubles[1]), 1)
    ours = kernels.concat_upsampled(x, skip)
    assert "ConcatUpsampled" in type(ours.grad_fn).__name__
    _assert_close(ours, theirs, ROUNDING[kind])
    for mine, other in zip(
        torch.autograd.grad(ours, (x, skip), dy), torch.autograd.grad(theirs, doubles, dy.double()), strict=True
    ):
        assert mine.dtype == kind
        _assert_close(mine, other, ROUNDING[kind])


@needs_kernels
def test_conv_norm_relu_is_torchs_and_its_bias_gets_zeros() -> None:
    conv, norm = nn.Conv2d(3, 16, 3, padding=2, dilation=2).to(memory_format=torch.channels_last), _norm(16)
    x, dy = _random(2, 3, 12, 10).requires_grad_(), _random(2, 16, 12, 10, seed=3)
    doubles = [copy.deepcopy(module).double() for module in (conv, norm)]
    theirs = F.relu(doubles[1](doubles[0](x.double())))
    (expected,) = torch.autograd.grad(theirs, doubles[0].weight, dy.double(), retain_graph=True)
    y = kernels.conv_norm_relu(conv, norm, x)
    _assert_close(y, theirs, 1e-5)
    _assert_close(norm.running_mean, doubles[1].running_mean, 1e-5)
    y.backward(dy)
    _assert_close(conv.weight.grad, expected, 1e-5)
    assert torch.equal(conv.bias.grad, torch.zeros(16))
    theirs.backward(dy.double())
    assert float(doubles[0].bias.grad.abs().max()) < 1e-12


@needs_kernels
@TYPES
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_passes_on(value: float, kind: torch.dtype) -> None:
    for k in range(4):
        x = torch.zeros(1, 16, 2, 2, dtype=kind).contiguous(memory_format=torch.channels_last)
        x.view(1, 16, 4)[..., k] = value
        assert not kernels.max_pool(x.requires_grad_()).isfinite().any()
    norms = _norm(16), _norm(16)
    ours, theirs = kernels.norm_relu(norms[0], x), F.relu(norms[1](x))
    assert torch.equal(ours.isnan(), theirs.isnan())
    assert ours.isnan().all()
    assert norms[0].running_var.isnan().all()


@needs_kernels
def test_bfloat16_is_rounded_as_torch_rounds() -> None:
    """Along a row of the same shade enlarging changes nothing, so what comes out is what a store makes of what a load read."""
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    x = bits.reshape(-1, 16, 1, 1).contiguous(memory_format=torch.channels_last).requires_grad_()
    skip = torch.zeros(len(x), 16, 2, 2, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    y, expected = kernels.concat_upsampled(x, skip)[:, :16].detach(), x.detach().expand(-1, -1, 2, 2)
    assert torch.equal(y.isnan(), expected.isnan())
    assert torch.equal(y[~y.isnan()], expected[~y.isnan()])
    # a quarter and three quarters of the way between two neighbours but one: halfway, and the even one is meant
    row = torch.tensor([1.0, 1.015625], dtype=torch.bfloat16).expand(1, 16, 1, 2)
    skip = torch.zeros(1, 16, 2, 4, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    enlarged = kernels.concat_upsampled(row.contiguous(memory_format=torch.channels_last).requires_grad_(), skip)
    assert enlarged[0, 0, 0].tolist() == [1.0, 1.0, 1.015625, 1.015625]


@needs_kernels
def test_under_autocast_works_in_what_the_convolution_made() -> None:
    """There a convolution of float32 is bfloat16: half as long as what went in."""
    conv, norms = nn.Conv2d(3, 16, 3, padding=1).to(memory_format=torch.channels_last), (_norm(16), _norm(16))
    x = _random(2, 3, 12, 10).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = kernels.conv_norm_relu(conv, norms[0], x), F.relu(norms[1](conv(x)))
    assert "NormRelu" in type(ours.grad_fn).__name__
    assert ours.dtype == torch.bfloat16
    _assert_close(ours.float(), theirs.float(), 2 * ROUNDING[torch.bfloat16])
    dy = _random(2, 16, 12, 10, seed=3)
    gradients = [torch.autograd.grad(y, (x, conv.weight), dy.to(y.dtype), retain_graph=True) for y in (ours, theirs)]
    for mine, other in zip(*gradients, strict=True):
        _assert_close(mine, other, 4 * ROUNDING[torch.bfloat16])
    with torch.autocast("cpu", dtype=torch.float16):
        assert "NormRelu" not in type(kernels.conv_norm_relu(conv, norms[0], x).grad_fn).__name__
    # what is float32 stays it, and two types are not put side by side
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wide = _random(2, 16, 4, 4).requires_grad_()
        assert kernels.max_pool(wide).dtype == kernels.norm_relu(norms[0], wide).dtype == torch.float32
        assert kernels.concat_upsampled(wide, _random(2, 16, 8, 8).bfloat16()).dtype == torch.float32


@needs_kernels
def test_nothing_to_do_is_done_as_torch_does_it() -> None:
    x = _random(0, 16, 8, 8).requires_grad_()
    conv, norm, skip = nn.Conv2d(16, 16, 3, padding=1).to(memory_format=torch.channels_last), _norm(16), _random(0, 16, 16, 16)
    assert kernels.conv_norm_relu(conv, norm, x).shape == kernels.norm_relu(norm, x).shape == (0, 16, 8, 8)
    assert kernels.max_pool(x).shape == (0, 16, 4, 4)
    assert kernels.concat_upsampled(x, skip).shape == (0, 32, 16, 16)
    kernels.norm_relu(norm, x).sum().backward()
    assert not x.grad.numel()


@needs_kernels
def test_tensors_that_do_not_fit_together_are_refused_as_torch_does() -> None:
    x = _random(2, 16, 8, 8).requires_grad_()
    for norm in (_norm(32), _norm(16).double()):
        with pytest.raises(RuntimeError):
            kernels.norm_relu(norm, x)
    for shape in ((2, 16, 15, 16), (2, 16, 16, 8), (1, 16, 16, 16)):
        with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
            kernels.concat_upsampled(x, _random(*shape))


@needs_kernels
def test_without_gradients_statistics_move_all_the_same() -> None:
    norms, x = (_norm(16), _norm(16)), _random(2, 16, 8, 8)
    with torch.no_grad():
        ours = kernels.norm_relu(norms[0], x)
    assert ours.grad_fn is None
    _assert_close(ours, kernels.norm_relu(norms[1], x), 1e-5)
    _assert_close(norms[0].running_var, norms[1].running_var, 1e-6)
    assert norms[0].num_batches_tracked == norms[1].num_batches_tracked == 1


@needs_kernels
def test_only_what_asks_for_a_gradient_gets_one() -> None:
    norm, x = _norm(16).requires_grad_(False), _random(2, 16, 8, 8).requires_grad_()
    kernels.norm_relu(norm, x).backward(_random(2, 16, 8, 8, seed=3))
    assert x.grad is not None
    assert norm.weight.grad is None
    assert kernels.norm_relu(norm, x.detach()).grad_fn is None
    dy = _random(2, 32, 16, 16, seed=3)
    for k in range(2):
        both = [_random(2, 16, 8, 8), _random(2, 16, 16, 16)]
        both[k].requires_grad_()
        kernels.concat_upsampled(*both).backward(dy)
        assert both[k].grad is not None
        assert both[1 - k].grad is None


@needs_kernels
def test_threads_may_change_between_the_way_there_and_back() -> None:
    gradients, before = [], torch.get_num_threads()
    try:
        for threads in ((2, 2), (1, 3), (3, 1)):
            x, norm = _random(2, 16, 18, 14).requires_grad_(), _norm(16)
            torch.set_num_threads(threads[0])
            y = kernels.concat_upsampled(kernels.max_pool(kernels.norm_relu(norm, x)), x)
            torch.set_num_threads(threads[1])
            y.backward(_random(2, 32, 18, 14, seed=3))
            gradients.append(x.grad)
    finally:
        torch.set_num_threads(before)
    for gradient in gradients[1:]:
        _assert_close(gradient, gradients[0], 1e-6)


@needs_kernels
@pytest.mark.parametrize("is_mixed", [False, True], ids=["float32", "bfloat16"])
def test_a_network_that_trains_consists_of_them(is_mixed: bool) -> None:
    network = networks.create("u2netp").to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_mixed):
        used, waiting = set(), [y.grad_fn for y in network(_random(2, 3, 64, 64))]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in used:
            used.add(node)
            waiting += [before for before, _ in node.next_functions]
    count = Counter(type(node).__name__ for node in used)
    assert count["_NormReluBackward"] == sum(isinstance(part, nn.BatchNorm2d) for part in network.modules())
    assert count["_MaxPoolBackward"] == 33  # 5 between the stages; twice 5, 4, 3 and 2 within
    assert count["_ConcatUpsampledBackward"] == 33
    assert not [name for name in count if "BatchNorm" in name or "MaxPool2D" in name]


@pytest.mark.parametrize(
    "x",
    [_random(2, 16, 8, 8).contiguous(), _random(2, 16, 8, 8).double(), _random(2, 12, 8, 8), _random(2, 16, 7, 8)],
    ids=["contiguous", "float64", "12 channels", "odd height"],
)
def test_other_tensors_go_to_torch(x: Tensor) -> None:
    x = x.requires_grad_()
    assert torch.equal(kernels.max_pool(x), F.max_pool2d(x, 2, ceil_mode=True))
    norms = [_norm(x.shape[1]).to(x.dtype) for _ in range(2)]
    ours, theirs = kernels.norm_relu(norms[0], x), F.relu(norms[1](x))
    _assert_close(ours, theirs, 1e-5)


@pytest.mark.parametrize("settings", [{"momentum": None}, {"affine": False}, {"track_running_stats": False}], ids=str)
def test_unusual_normalisation_goes_to_torch(settings: dict[str, object]) -> None:
    x, (ours, theirs) = _random(2, 16, 8, 8).requires_grad_(), (nn.BatchNorm2d(16, **settings) for _ in range(2))
    assert torch.equal(kernels.norm_relu(ours, x), F.relu(theirs(x)))
    if ours.running_mean is not None:
        assert torch.equal(ours.running_mean, theirs.running_mean)


def test_evaluation_goes_to_torch() -> None:
    norm, x = _norm(16).eval(), _random(2, 16, 8, 8)
    assert torch.equal(kernels.norm_relu(norm, x), F.relu(norm(x)))
    assert norm.num_batches_tracked == 0


def test_one_value_a_channel_is_refused_as_torch_does() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        kernels.norm_relu(_norm(16), _random(1, 16, 1, 1).requires_grad_())


@needs_kernels
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("EDGESOD_KERNELS", "0", ""),
        ("CC", "no-such-compiler", "no C compiler no-such-compiler"),
        ("CC", "false", "false"),
        ("EDGESOD_CACHE", "/proc/none", "/proc/none"),
    ],
)
def test_does_without_a_compiler_or_a_cache_and_says_so(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(name, value)
    assert library.__wrapped__() is None
    assert len(caplog.messages) == bool(said)
    assert said in caplog.text


@needs_kernels
def test_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESOD_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", f"env {os.environ.get('CC') or 'cc'}")  # as "ccache gcc": more than one word
    made = []
    for _ in range(2):
        assert library.__wrapped__() is not None
        made.append([(path.suffix, path.stat().st_mtime_ns) for path in (tmp_path / "kernels").iterdir()])
    assert made[0] == made[1]
    assert [suffix for suffix, _ in made[0]] == [".so"]


@needs_kernels
def test_a_compiler_too_old_for_bfloat16_still_makes_float32s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text(f"""#!/bin/sh
case "$*" in *-DBF16*) echo no such builtin >&2; exit 1;; esac
exec {os.environ.get("CC") or "cc"} "$@"
""")
    compiler.chmod(0o755)
    monkeypatch.setenv("EDGESOD_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", str(compiler))
    made = library.__wrapped__()
    assert list(made) == [torch.float32]
    monkeypatch.setattr("trainer.kernels.operators.library", lambda: made)
    conv, norm, x = nn.Conv2d(16, 16, 1).to(memory_format=torch.channels_last), _norm(16), _random(2, 16, 8, 8)
    assert "NormRelu" in type(kernels.conv_norm_relu(conv, norm, x).grad_fn).__name__
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert "NormRelu" not in type(kernels.conv_norm_relu(conv, norm, x).grad_fn).__name__


@pytest.mark.parametrize("channels", [1, 6])
def test_gradient_through_a_concatenation_is_the_same_in_either_layout(channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, skip = torch.randn(2, channels, 5, 7, generator=generator), torch.randn(2, 3, 10, 14, generator=generator)
    weight = torch.randn(2, channels + 3, 10, 14, generator=generator)
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last):
        leaf = x.clone(memory_format=layout).requires_grad_()
        joined = torch.cat((kernels.upsample(leaf), skip.clone(memory_format=layout)), 1)
        (joined * weight.clone(memory_format=layout)).sum().backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)
    assert gradients[1].is_contiguous(memory_format=torch.channels_last)


def test_upsampling_passes_gradcheck() -> None:
    x = torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(kernels.upsample, x)
