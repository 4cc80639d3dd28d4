"""The networks, by name: ``create("u2netp")``."""

from __future__ import annotations

from .config import NetworkConfig
from .registry import config, create, freeze_batch_norm, load_backbone, load_weights, names

__all__ = ["NetworkConfig", "config", "create", "freeze_batch_norm", "load_backbone", "load_weights", "names"]
