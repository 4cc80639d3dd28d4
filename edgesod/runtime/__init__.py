"""Engines loaded and run: a small session per backend, and the runtime that turns frames into results."""

from __future__ import annotations

from edgesod.runtime.memory_session import MemorySession
from edgesod.runtime.runtime import Runtime, is_built_from_shipped
from edgesod.runtime.select import BackendState, available_backends, choose_backend, open_session
from edgesod.runtime.session import Session

__all__ = [
    "BackendState",
    "MemorySession",
    "Runtime",
    "Session",
    "available_backends",
    "choose_backend",
    "is_built_from_shipped",
    "open_session",
]
