"""Waiting for something that has to happen."""

from __future__ import annotations

import time
from collections.abc import Callable

_LIMIT_S = 60


def until(is_so: Callable[[], object], what: str = "it") -> float:
    """Wait until something is so, and return the seconds it took; fail when it never happens."""
    begun_s = time.perf_counter()
    while not is_so():
        assert time.perf_counter() - begun_s < _LIMIT_S, f"{what} did not happen"
        time.sleep(0.005)
    return time.perf_counter() - begun_s
