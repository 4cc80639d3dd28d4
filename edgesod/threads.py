"""How many threads work gets: no more than the processors this process may run on, and than the time it may use there."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

from edgesod.errors import UsageError

_CGROUPS = Path("/sys/fs/cgroup")


def resolve_threads(threads: int | None) -> int:
    """Return ``threads``, or the number of physical cores this process may run on where that is ``None``.

    Two hardware threads of one core share its multipliers, so a second one adds contention and no speed. A container that may use
    the time of fewer cores than it sees gets so many threads: with more it would be throttled in the middle of a frame.

    Raises:
        UsageError: Fewer than one.
    """
    if threads is None:
        return max(1, int(min(physical_cores(), _cpu_quota())))
    if threads < 1:
        raise UsageError(f"a network needs at least one thread, got {threads}")
    return threads


def usable_cpus() -> int:
    """Return how many processors this process may keep busy, hardware threads of one core counted each; at least one.

    For decoding, scoring and the like, which wait for memory and files; an engine's network gets :func:`resolve_threads`.
    """
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(seen, _cpu_quota())))


@cache
def physical_cores() -> int:
    """Return how many physical cores this process may run on, whatever time it may use there."""
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


def _cpu_quota() -> float:
    """Return the time a container may use, in CPUs (``docker run --cpus``), of which the affinity says nothing."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):  # cgroups' second version, and their first
        with suppress(OSError, ValueError):  # the other version, or "max"
            quota, period = (int(word) for name in files for word in (_CGROUPS / name).read_text(encoding="ascii").split())
            if quota > 0:
                return quota / period
    return math.inf
