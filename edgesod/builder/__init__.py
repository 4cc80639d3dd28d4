"""From an FP32 ONNX and a recipe to an engine folder that has been checked."""

from __future__ import annotations

from edgesod.builder.engine import build
from edgesod.builder.gate import GateSet, measure, verdict
from edgesod.builder.tensorrt_policy import TensorRtOptions

__all__ = ["GateSet", "TensorRtOptions", "build", "measure", "verdict"]
