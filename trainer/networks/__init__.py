"""The networks, by name: ``create("u2netp")``."""

from __future__ import annotations

from .config import NetworkConfig
from .registry import (
    WeightsMetadata,
    config,
    create,
    freeze_batch_norm,
    load_backbone,
    load_weights,
    names,
    weights_metadata,
)

__all__ = [
    "NetworkConfig",
    "WeightsMetadata",
    "config",
    "create",
    "freeze_batch_norm",
    "load_backbone",
    "load_weights",
    "names",
    "weights_metadata",
]
