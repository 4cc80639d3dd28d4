"""From a torch network to an ONNX file that was compared with it."""

from __future__ import annotations

from .export import export_model

__all__ = ["export_model"]
