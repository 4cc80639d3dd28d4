"""Losses of salient object detection, on logits."""

from __future__ import annotations

from .deep_supervision import DeepSupervision, LossParts
from .terms import TAUGHT, TERMS, bce, bce_sum, iou, ssim

__all__ = ["TAUGHT", "TERMS", "DeepSupervision", "LossParts", "bce", "bce_sum", "iou", "ssim"]
