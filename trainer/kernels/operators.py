"""What networks are built of, each the same as the torch operators in its docstring.

Those are called wherever there is no kernel for the case: on GPUs, for other types than float32 and bfloat16, for other memory
orders, without gradients, in evaluation, without a C compiler. Tensor legend: ``x`` is float ``(N, C, H, W)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .library import TYPES, library

_LANES = 16  # channels come in multiples of so many


def conv_norm_relu(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """Return ``relu(norm(conv(x)))``, plus a residual of the same shape where one is given.

    While the normalisation learns, the convolution's bias gets a gradient of zeros.

    That is what it is: the normalisation takes every constant away again. Torch adds up the rounding errors in its place.
    """
    made = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    has_kernel = _kernels_for(x) is not None and made in (library() or ()) and conv.out_channels % _LANES == 0
    if not has_kernel or not _learns(norm, conv.out_channels) or conv.bias is None:
        return norm_relu(norm, conv(x), residual)
    y = F.conv2d(x, conv.weight, conv.bias.detach(), conv.stride, conv.padding, conv.dilation, conv.groups)
    return _norm_relu(norm, y, residual, conv.bias)


def norm_relu(norm: nn.BatchNorm2d, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """Return ``relu(norm(x))``, plus a residual of the same shape where one is given.

    The normalisation learns in 8 passes over memory in place of torch's 13, and the residual takes one in place of three.

    Sums are kept in float64. Torch's are float32: at 320×320 and batch 4 they are off by up to a thousandth of a deviation.
    """
    if _kernels_for(x, x.shape[1]) is None or not _learns(norm, x.shape[1]):
        y = F.relu(norm(x), inplace=True)
        return y if residual is None else y + residual
    return _norm_relu(norm, x, residual)


def max_pool(x: Tensor) -> Tensor:
    """Return ``max_pool2d(x, 2, ceil_mode=True)``, an odd last row or column kept.

    Where the gradient goes is looked for again; torch writes it down, in eight bytes a value.
    """
    kernels = _kernels_for(x, x.shape[1])
    if kernels is None or x.shape[2] % 2 or x.shape[3] % 2:
        return F.max_pool2d(x, 2, stride=2, ceil_mode=True)
    result: Tensor = _MaxPool.apply(kernels, x)
    return result


def upsample(x: Tensor, factor: int = 2) -> Tensor:
    """Enlarge bilinearly by a whole factor, pixel areas aligned."""
    y = F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)
    if y.requires_grad and y.device.type == "cpu" and not torch.jit.is_tracing():
        # after a concatenation the gradient is a slice, which torch's backward takes apart plane by plane, at five times the
        # cost of packing it first
        y.register_hook(_pack)
    return y


def concat_upsampled(x: Tensor, skip: Tensor) -> Tensor:
    """Return ``cat((interpolate(x, scale_factor=2, mode="bilinear"), skip), 1)``, each value written once."""
    kernels = _kernels_for(x, x.shape[1]) and _kernels_for(skip, skip.shape[1])
    # the sizes last: a trace, which gets no kernels, warns of every comparison
    if kernels is None or x.dtype != skip.dtype or (len(skip), *skip.shape[2:]) != (len(x), 2 * x.shape[2], 2 * x.shape[3]):
        return torch.cat((upsample(x), skip), 1)
    result: Tensor = _ConcatUpsampled.apply(kernels, x, skip)
    return result


def _pack(gradient: Tensor | None) -> Tensor | None:
    # a slice of channels alone is packed; where nothing flows back there is none
    if gradient is None or gradient.is_contiguous() or gradient.stride(1) != 1:
        return gradient
    return gradient.contiguous(memory_format=torch.channels_last)


def _kernels_for(x: Tensor, *channels: int) -> SimpleNamespace | None:
    """Return the kernels for tensors like this and as many channels; ``None`` where torch's own operators have to do it."""
    if torch.jit.is_tracing() or not torch.is_grad_enabled() or x.device.type != "cpu":
        return None
    if x.dtype not in TYPES or x.numel() == 0 or any(count % _LANES for count in channels):
        return None
    kernels = library() if x.is_contiguous(memory_format=torch.channels_last) else None
    return None if kernels is None else kernels.get(x.dtype)


def _learns(norm: nn.BatchNorm2d, channels: int) -> bool:
    """Return whether a normalisation learns as the kernel does, and has what the kernel reads and writes."""
    if not norm.training or norm.momentum is None:
        return False
    parts = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    return all(part is not None and _is_float32_on_cpu(part) and part.shape == (channels,) for part in parts)


def _is_float32_on_cpu(x: Tensor) -> bool:
    return x.dtype == torch.float32 and x.device.type == "cpu"


def _norm_relu(norm: nn.BatchNorm2d, x: Tensor, residual: Tensor | None, unused_bias: Tensor | None = None) -> Tensor:
    if x.numel() == x.shape[1]:
        raise ValueError(f"batch normalisation learns from more than 1 value per channel, got input size {tuple(x.shape)}")
    norm.num_batches_tracked.add_(1)  # type: ignore[operator]
    fits = residual is not None and (residual.shape, residual.dtype, residual.device) == (x.shape, x.dtype, x.device)
    result: Tensor = _NormRelu.apply(norm, x, residual if fits else None, norm.weight, norm.bias, unused_bias)
    return result if fits or residual is None else result + residual


class _NormRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, norm: nn.BatchNorm2d, x: Tensor, *others: Tensor | None) -> Tensor:
        residual, weight, bias, ctx.unused_bias = others
        ctx.kernels = library()[x.dtype]  # by what is there, not by what was expected: another type would be read past its end
        x = x.contiguous(memory_format=torch.channels_last)
        if residual is not None:
            residual = residual.contiguous(memory_format=torch.channels_last)
        y, saved = torch.empty_like(x), weight.new_empty(4, x.shape[1])
        inputs = _addresses(x, weight, bias, norm.running_mean, norm.running_var)
        added = None if residual is None else residual.data_ptr()
        size = (x.numel() // x.shape[1], x.shape[1], torch.get_num_threads())
        _check(ctx.kernels.norm_relu(*inputs, added, norm.momentum, norm.eps, *size, *_addresses(y, saved)))
        ctx.has_residual = residual is not None
        ctx.save_for_backward(x, saved)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, saved = ctx.saved_tensors
        dy, stride = _by_pixels(gradients[0])
        dx, dweight, dbias = torch.empty_like(x), saved.new_empty(x.shape[1]), saved.new_empty(x.shape[1])
        size = (x.numel() // x.shape[1], x.shape[1], torch.get_num_threads())
        inputs, outputs = (*_addresses(x, dy), stride, *_addresses(saved)), _addresses(dx, dweight, dbias)
        _check(ctx.kernels.norm_relu_backward(*inputs, *size, *outputs))
        dunused = None if ctx.unused_bias is None else torch.zeros_like(ctx.unused_bias)
        return None, dx, gradients[0] if ctx.has_residual else None, dweight, dbias, dunused


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernels: SimpleNamespace, x: Tensor) -> Tensor:
        pictures, channels, height, width = x.shape
        y = _empty_like(x, (pictures, channels, height // 2, width // 2))
        kernels.max_pool(x.data_ptr(), pictures * height, width, channels, torch.get_num_threads(), y.data_ptr())
        ctx.kernels = kernels
        ctx.save_for_backward(x)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        pictures, channels, height, width = x.shape
        dy, stride = _by_pixels(gradients[0])
        dx = torch.empty_like(x)
        size = (pictures * height, width, channels, torch.get_num_threads())
        ctx.kernels.max_pool_backward(*_addresses(x, dy), stride, *size, dx.data_ptr())
        return None, dx


class _ConcatUpsampled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernels: SimpleNamespace, x: Tensor, skip: Tensor) -> Tensor:
        pictures, channels, height, width = x.shape
        beside = skip.shape[1]
        y = _empty_like(x, (pictures, channels + beside, 2 * height, 2 * width))
        size = (pictures * height, height, width, channels, beside, torch.get_num_threads())
        _check(kernels.concat_upsampled(*_addresses(x, skip), *size, y.data_ptr()))
        ctx.kernels, ctx.shape = kernels, x.shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        pictures, channels, height, width = ctx.shape
        dy, stride = _by_pixels(gradients[0])
        dx = _empty_like(dy, ctx.shape)
        size = (pictures * height, height, width, channels, torch.get_num_threads())
        _check(ctx.kernels.upsample_backward(dy.data_ptr(), stride, *size, dx.data_ptr()))
        return None, dx, dy[:, channels:]


def _empty_like(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a tensor of another shape to be filled: of the same type on the same device, whatever torch's defaults are."""
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _addresses(*tensors: Tensor | None) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors if tensor is not None]


def _by_pixels(gradient: Tensor) -> tuple[Tensor, int]:
    """Return a gradient whose pixels lie one after the other, and the elements from one to the next; copied only if they do not."""
    _, _, height, width = gradient.shape
    of_picture, of_channel, of_line, of_pixel = gradient.stride()
    if (of_channel, of_line, of_picture) != (1, width * of_pixel, height * of_line):
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_pixel = gradient.shape[1]
    return gradient, of_pixel


def _check(status: int) -> None:
    if status:
        raise MemoryError("no memory is left for a kernel's sums")
