"""Threads are given out by what this process may use, not by what it sees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgesod.errors import UsageError
from edgesod.stream.sinks import h264
from edgesod.threads import resolve_threads, usable_cpus


def test_threads() -> None:
    assert resolve_threads(3) == 3
    assert 1 <= resolve_threads(None) <= len(os.sched_getaffinity(0))
    with pytest.raises(UsageError, match="at least one"):
        resolve_threads(0)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "6400000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
    ],
)
def test_a_container_gets_no_more_threads_than_it_may_use_cpus(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr("edgesod.threads._CGROUPS", tmp_path)
    monkeypatch.setattr("edgesod.threads.physical_cores", lambda: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8))
    assert (resolve_threads(None), usable_cpus()) == (expected, expected)
    assert h264._threads() == max(1, expected // 2)
