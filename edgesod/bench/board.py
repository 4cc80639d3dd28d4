"""What is to be known about the board a number was measured on: JetPack, power mode, clocks.

A Jetson is told by ``/etc/nv_tegra_release`` and the device tree; ``uname`` would not do, for recent boards look like any
arm64 server. Sources of the paths: the Jetson Linux developer guide and the kernel's cpufreq and devfreq documentation.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_RELEASE = re.compile(r"# R(\d+) \(release\), REVISION: ([\d.]+)")
_TIMEOUT_S = 5

JETPACKS = {
    "36.3": "6.0",
    "36.4.0": "6.1",
    "36.4": "6.2",
    "36.5": "6.2",
    "38.2": "7.0",
    "38.4": "7.1",
    "39.2": "7.2",
}
"""L4T → JetPack, by the longest beginning that fits; used where the package ``nvidia-jetpack`` is not installed."""


@dataclass(frozen=True)
class Clock:
    """A processor's clock.

    Attributes:
        mhz: Now.
        lowest_mhz: What it may fall to.
        highest_mhz: What it may rise to.
    """

    mhz: int
    lowest_mhz: int
    highest_mhz: int

    @property
    def is_fixed(self) -> bool:
        """Whether it has no choice, as after ``jetson_clocks``."""
        return self.lowest_mhz == self.highest_mhz


@dataclass(frozen=True)
class Board:
    """A board, as far as it says what it is; each is ``None`` where it does not.

    Attributes:
        model: Such as ``NVIDIA Jetson Orin Nano Developer Kit``.
        l4t: Version of Jetson Linux, such as ``36.4.3``.
        jetpack: Such as ``6.2``, with the rest of the version where the package says it.
        power_mode: Name of the ``nvpmodel`` in force.
        clocks: Those of the first CPU (``cpu``) and the GPU (``gpu``), where they can be read.
        governor: How the first CPU chooses its clock, such as ``schedutil`` or ``performance``.
    """

    model: str | None
    l4t: str | None
    jetpack: str | None
    power_mode: str | None
    clocks: dict[str, Clock]
    governor: str | None = None

    @property
    def is_jetson(self) -> bool:
        """Whether Jetson Linux runs on it."""
        return self.l4t is not None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why numbers measured now would not be repeatable."""
        free = [name.upper() for name, clock in self.clocks.items() if not clock.is_fixed]
        if not self.is_jetson or not free:
            return ()
        return (f"the clocks of {' and '.join(free)} are free to fall: sudo nvpmodel -m MODE, then sudo jetson_clocks",)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as one JSON-ready object."""
        clocks = {name: asdict(clock) | {"is_fixed": clock.is_fixed} for name, clock in self.clocks.items()}
        return asdict(self) | {"clocks": clocks}


def read_board(root: Path = Path("/")) -> Board:
    """Read what there is below ``root``; nothing in it needs rights or is about a person."""
    release = _RELEASE.match(_text(root / "etc/nv_tegra_release") or "")
    l4t = f"{release[1]}.{release[2]}" if release else None
    cpu = root / "sys/devices/system/cpu/cpu0/cpufreq"
    gpu = next((folder for folder in sorted(root.glob("sys/class/devfreq/*")) if "gpu" in folder.name), None)
    clocks = {
        "cpu": _clock((cpu / f"scaling_{which}_freq" for which in ("cur", "min", "max")), unit_hz=1000),
        "gpu": _clock((gpu / f"{which}_freq" for which in ("cur", "min", "max")), unit_hz=1) if gpu else None,
    }
    return Board(
        model=_text(root / "proc/device-tree/model"),
        l4t=l4t,
        jetpack=_jetpack(root, l4t),
        power_mode=_power_mode(root / "usr/sbin/nvpmodel"),
        clocks={name: clock for name, clock in clocks.items() if clock is not None},
        governor=_text(cpu / "scaling_governor"),
    )


def _jetpack(root: Path, l4t: str | None) -> str | None:
    """Return the version of the package ``nvidia-jetpack``, else the one that belongs to an L4T."""
    status = _text(root / "var/lib/dpkg/status") or ""
    for entry in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line and not line.startswith(" "))
        if fields.get("Package") == "nvidia-jetpack" and fields.get("Status", "").endswith(" installed"):
            return fields.get("Version")
    fitting = [begin for begin in JETPACKS if l4t is not None and f"{l4t}.".startswith(f"{begin}.")]
    return JETPACKS[max(fitting, key=len)] if fitting else None


def _power_mode(nvpmodel: Path) -> str | None:
    if not nvpmodel.is_file():
        return None
    try:
        done = subprocess.run([nvpmodel, "-q"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"Power Mode:\s*(\S+)", done.stdout)
    return found[1] if found else None


def _clock(paths: Iterable[Path], unit_hz: int) -> Clock | None:
    """Return the clock that three files give as now, lowest and highest, in ``unit_hz``."""
    values = [_text(path) for path in paths]
    if not all(value is not None and value.isdigit() for value in values):
        return None
    return Clock(*(round(int(value or 0) * unit_hz / 1e6) for value in values))


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return None
