"""What a number was measured on, and how much memory the process takes: recorded with every measurement."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgesod.bench.board import read_board
from edgesod.manifest import Device, versions_here

_PACKAGES = ("edgesod", "onnxruntime", "openvino", "tensorrt", "numpy", "opencv-python")


def environment(device: Device, facts: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the time (UTC), machine, system, clocks and versions as one JSON-ready object; nothing in it is about a person or a place.

    ``facts`` are the runtime's: on a GPU, which one it is, and why its CUDA graph is not replayed (``graph_reason``, else empty).
    What the machine does not tell is ``None``: a virtual machine seldom knows its clocks.
    """
    board = read_board()
    return {
        "measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": device.name,
        "architecture": device.architecture,
        "int8_dot_product": device.int8_dot_product,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": _memory_gb(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "board": board.model,
        "governor": board.governor,
        "power_mode": board.power_mode,
        "clocks_mhz": {name: clock.mhz for name, clock in board.clocks.items()},
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "versions": versions_here(*_PACKAGES),
        **(facts or {}),
    }


def resident_mb() -> float | None:
    """Return how much memory this process holds now, in 10⁶ bytes; ``None`` where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 3)


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
    except (AttributeError, OSError, ValueError):
        return None
