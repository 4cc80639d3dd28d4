"""Activation ranges over real images, and the typed ONNX files made from them: FP16 graphs and INT8 graphs with Q/DQ."""

from __future__ import annotations

from .collect import calibrate

__all__ = ["calibrate"]
