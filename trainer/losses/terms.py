"""The three terms of BASNet's hybrid loss: pixel (BCE), patch (SSIM) and map (IoU); and BCE summed over pixels.

Each takes logits and truth, float ``(N, 1, H, W)``, truth in [0, 1], and returns a scalar. From Qin et al., "BASNet:
Boundary-Aware Salient Object Detection", CVPR 2019, with one addition: IoU has an epsilon, without which an empty map
against an empty truth is 0/0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

_SSIM_WINDOW, _SSIM_SIGMA = 11, 1.5
_SSIM_C1, _SSIM_C2 = 0.01**2, 0.03**2


def bce(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the mean binary cross-entropy."""
    return F.binary_cross_entropy_with_logits(logits, truth)


def bce_sum(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the binary cross-entropy summed over the pixels of each picture, averaged over the batch.

    PoolNet's and SRM's loss: their learning rates and weight decay go with its size, which grows with the picture's.
    """
    return F.binary_cross_entropy_with_logits(logits, truth, reduction="sum") / len(logits)


def iou(logits: Tensor, truth: Tensor, eps: float = 1e-6) -> Tensor:
    """Return one minus the soft intersection over union of each picture, averaged over the batch."""
    p = torch.sigmoid(logits)
    inside = (p * truth).sum((1, 2, 3))
    union = p.sum((1, 2, 3)) + truth.sum((1, 2, 3)) - inside
    return (1 - (inside + eps) / (union + eps)).mean()


def ssim(logits: Tensor, truth: Tensor) -> Tensor:
    """Return one minus the mean structural similarity of map and truth."""
    return 1 - ssim_map(torch.sigmoid(logits), truth).mean()


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """Return the SSIM of two float ``(N, 1, H, W)`` maps in [0, 1] per pixel (11×11 Gaussian, σ 1.5, zero padding).

    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 2004.
    """
    mu_a, mu_b = _blur(a), _blur(b)
    var_a = _blur(a * a) - mu_a * mu_a
    var_b = _blur(b * b) - mu_b * mu_b
    covariance = _blur(a * b) - mu_a * mu_b
    similarity = (2 * mu_a * mu_b + _SSIM_C1) * (2 * covariance + _SSIM_C2)
    return similarity / ((mu_a * mu_a + mu_b * mu_b + _SSIM_C1) * (var_a + var_b + _SSIM_C2))


def _blur(x: Tensor) -> Tensor:
    offsets = torch.arange(_SSIM_WINDOW, dtype=x.dtype, device=x.device) - _SSIM_WINDOW // 2
    window = torch.exp(-(offsets**2) / (2 * _SSIM_SIGMA**2))
    window = window / window.sum()
    x = F.conv2d(x, window.view(1, 1, -1, 1), padding=(_SSIM_WINDOW // 2, 0))
    return F.conv2d(x, window.view(1, 1, 1, -1), padding=(0, _SSIM_WINDOW // 2))


TERMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bce": bce,
    "bce_sum": bce_sum,
    "distill": bce,
    "iou": iou,
    "ssim": ssim,
}
"""Terms by the name recipes use."""

TAUGHT = frozenset({"distill"})
"""Those that take a teacher's map in place of the truth (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015).

Their smallest value is not 0 but the entropy of that map.
"""
