"""How many threads a network gets: the cores this process may use, each counted once."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from edgesod.errors import UsageError


def resolve_threads(threads: int | None) -> int:
    """Return ``threads``, or the number of physical cores this process may run on where that is ``None``.

    Two hardware threads of one core share its multipliers, so a second one adds contention and no speed.

    Raises:
        UsageError: Fewer than one.
    """
    if threads is None:
        return _physical_cores()
    if threads < 1:
        raise UsageError(f"a network needs at least one thread, got {threads}")
    return threads


@cache
def _physical_cores() -> int:
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = set()
    for cpu in os.sched_getaffinity(0):
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(path.read_text(encoding="ascii").strip())
        except OSError:
            cores.add(str(cpu))  # no topology here: every CPU counts
    return len(cores)
