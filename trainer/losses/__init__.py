"""Losses of salient object detection, on logits."""

from __future__ import annotations

from .deep_supervision import DeepSupervision, LossParts
from .terms import TERMS, bce, iou, ssim

__all__ = ["TERMS", "DeepSupervision", "LossParts", "bce", "iou", "ssim"]
