"""Small parts that several networks share, written so that an exported graph has one fixed size and no shape arithmetic.

Tensor legend: ``x`` is float ``(N, C, H, W)`` throughout.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Window = tuple[int, int]
"""First index and the one past the last, along one axis."""


def static_size(x: Tensor) -> tuple[int, int]:
    """Return height and width as plain numbers, while tracing too."""
    if not torch.jit.is_tracing():
        return x.shape[-2], x.shape[-1]
    with warnings.catch_warnings():
        # the tracer warns that the size becomes a constant, which is what an engine of a fixed size wants
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return int(x.shape[-2]), int(x.shape[-1])


def require_multiple_of_32(x: Tensor, network: str) -> None:
    """Raise ``ValueError`` unless height and width are multiples of 32."""
    height, width = static_size(x)
    if height % 32 or width % 32 or not height or not width:
        raise ValueError(f"{network} takes heights and widths that are multiples of 32, got {height}×{width}")


def require_at_least(x: Tensor, smallest: int, network: str) -> None:
    """Raise ``ValueError`` unless height and width are ``smallest`` or more."""
    height, width = static_size(x)
    if min(height, width) < smallest:
        raise ValueError(f"{network} takes heights and widths of at least {smallest}, got {height}×{width}")


def resize_to(x: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize bilinearly to a size, corner pixels aligned, as the PoolNet family and SRM are trained."""
    if static_size(x) == size_hw:
        return x
    return F.interpolate(x, size=size_hw, mode="bilinear", align_corners=True)


def pool_to_bins(x: Tensor, bins: int) -> Tensor:
    """Average into ``bins`` × ``bins`` windows that overlap where the size does not divide: adaptive average pooling."""
    rows, columns = ([(i * n // bins, -(-(i + 1) * n // bins)) for i in range(bins)] for n in static_size(x))
    return _window_means(x, rows, columns)


def pool_by_side(x: Tensor, bins: int) -> Tensor:
    """Average into disjoint windows of side ⌈size / bins⌉, the last one cut at the border; at most ``bins`` a side."""
    rows, columns = ([(i, min(i - (-n // bins), n)) for i in range(0, n, -(-n // bins))] for n in static_size(x))
    return _window_means(x, rows, columns)


def _window_means(x: Tensor, rows: Sequence[Window], columns: Sequence[Window]) -> Tensor:
    # two products with constant matrices: exporters refuse adaptive pooling, and runtimes disagree on cut windows
    height, width = static_size(x)
    return _averaging_matrix(rows, height, x) @ (x @ _averaging_matrix(columns, width, x).mT)


def _averaging_matrix(windows: Sequence[Window], size: int, like: Tensor) -> Tensor:
    k = torch.arange(size, device=like.device)
    return torch.stack([((k >= first) & (k < end)).to(like.dtype) / (end - first) for first, end in windows])
