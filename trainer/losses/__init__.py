"""Losses of salient object detection, on logits."""

from __future__ import annotations

from .deep_supervision import DeepSupervision, LossParts
from .terms import TERMS, bce, bce_sum, iou, ssim

__all__ = ["TERMS", "DeepSupervision", "LossParts", "bce", "bce_sum", "iou", "ssim"]
