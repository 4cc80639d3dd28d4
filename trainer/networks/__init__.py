"""The networks, by name: ``create("u2netp")``."""

from __future__ import annotations

from .registry import create, load_weights, names

__all__ = ["create", "load_weights", "names"]
