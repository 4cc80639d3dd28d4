"""Temperatures and power as the machine itself tells them: thermal zones, hwmon (INA3221 on a Jetson), RAPL, NVML.

Sources: the kernel's documentation of ``/sys/class/thermal``, ``/sys/class/hwmon`` and ``/sys/class/powercap``, the power monitor
chapter of the Jetson Linux developer guide (rails such as ``VDD_IN``), and NVML's reference.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

COLDEST_C = -60.0
"""Below it a sensor is off: Jetsons give −256 °C for a part without power."""


@dataclass(frozen=True)
class Sensors:
    """One reading. What a machine does not tell, or tells to the administrator alone, is not in it.

    Attributes:
        temperatures_c: By the sensor's name, in °C.
        power_w: By rail, in watts. Rails overlap: ``VDD_IN`` is all of a Jetson, its other rails are parts of it.
        energy_j: Counters that only grow, by RAPL zone, in joules: two readings make a power, see :meth:`power_since`.
        energy_range_j: Where each counter begins again at 0.
        read_at_s: ``time.monotonic()`` of the reading.
    """

    temperatures_c: dict[str, float] = field(default_factory=dict)
    power_w: dict[str, float] = field(default_factory=dict)
    energy_j: dict[str, float] = field(default_factory=dict)
    energy_range_j: dict[str, float] = field(default_factory=dict)
    read_at_s: float = 0.0

    def power_since(self, earlier: Sensors) -> dict[str, float]:
        """Return the power of every rail in watts: of counters the mean since ``earlier``, of the others as it is now."""
        seconds = self.read_at_s - earlier.read_at_s
        if seconds <= 0:
            return dict(self.power_w)
        return self.power_w | {name: joules / seconds for name, joules in self.energy_since(earlier).items()}

    def energy_since(self, earlier: Sensors) -> dict[str, float]:
        """Return what each counter has counted since ``earlier``, in joules; one that has begun again is understood."""
        spent = {}
        for name, now in self.energy_j.items():
            if name in earlier.energy_j:
                difference = now - earlier.energy_j[name]
                spent[name] = difference if difference >= 0 else difference + self.energy_range_j.get(name, 0.0)
        return spent

    def as_dict(self) -> dict[str, Any]:
        """Return temperatures, power and counters as one JSON-ready object."""
        return {name: value for name, value in asdict(self).items() if name not in ("read_at_s", "energy_range_j")}


def read_sensors(root: Path = Path("/")) -> Sensors:
    """Read every sensor below ``root``; a GPU's by NVML where ``root`` is this machine's. Never raises."""
    reading = Sensors(read_at_s=time.monotonic())
    for name, celsius in (*_thermal_zones(root), *_hwmon_temperatures(root)):
        if celsius > COLDEST_C:
            reading.temperatures_c[_free_name(name, reading.temperatures_c)] = round(celsius, 3)
    for name, watts in _hwmon_power(root):
        reading.power_w[_free_name(name, reading.power_w)] = round(watts, 4)
    for name, joules, range_j in _rapl_zones(root):
        name = _free_name(name, reading.energy_j)
        reading.energy_j[name], reading.energy_range_j[name] = joules, range_j
    if root == Path("/"):
        for gpu, celsius_now, watts_now in _nvml_gpus():
            if celsius_now is not None:
                reading.temperatures_c[gpu] = celsius_now
            if watts_now is not None:
                reading.power_w[gpu] = watts_now
    return reading


def _thermal_zones(root: Path) -> Iterator[tuple[str, float]]:
    for zone in _numbered(root / "sys/class/thermal", "thermal_zone*"):
        value = _number(zone / "temp")  # thousandths of a degree
        if value is not None:
            yield (_text(zone / "type") or zone.name).removesuffix("-thermal"), value / 1e3


def _hwmon_temperatures(root: Path) -> Iterator[tuple[str, float]]:
    for chip in _numbered(root / "sys/class/hwmon", "hwmon*"):
        chip_name = _text(chip / "name") or chip.name
        for path in _numbered(chip, "temp*_input"):
            value = _number(path)  # thousandths of a degree
            if value is not None:
                label = _text(path.with_name(path.name.replace("_input", "_label")))
                yield f"{chip_name} {label}" if label else chip_name, value / 1e3


def _hwmon_power(root: Path) -> Iterator[tuple[str, float]]:
    """Yield rails: what a chip gives as power, else voltage times current, which is what an INA3221 measures."""
    for chip in _numbered(root / "sys/class/hwmon", "hwmon*"):
        chip_name = _text(chip / "name") or chip.name
        told = _numbered(chip, "power*_input") or _numbered(chip, "power*_average")
        for path in told:
            value = _number(path)  # millionths of a watt
            if value is not None:
                label = _text(path.with_name(f"{path.name.split('_')[0]}_label"))
                yield label or chip_name, value / 1e6
        if told:
            continue
        for path in _numbered(chip, "curr*_input"):
            channel = path.name.removeprefix("curr").removesuffix("_input")
            label = _text(chip / f"in{channel}_label")
            amperes, volts = _number(path), _number(chip / f"in{channel}_input")  # thousandths both
            # channels without a name are not wired; "sum" adds channels up that are counted already
            if label and "sum" not in label.lower() and amperes is not None and volts is not None:
                yield label, amperes * volts / 1e6


def _rapl_zones(root: Path) -> Iterator[tuple[str, float, float]]:
    """Yield name, joules and range of each RAPL zone, such as ``package-0`` and, within it, ``package-0 core``."""
    for zone in _numbered(root / "sys/class/powercap", "intel-rapl:*"):
        value = _number(zone / "energy_uj")
        if value is None:
            continue
        name = _text(zone / "name") or zone.name
        number, _, part = zone.name.removeprefix("intel-rapl:").partition(":")
        if part:
            name = f"{_text(zone.parent / f'intel-rapl:{number}' / 'name') or number} {name}"
        yield name, value / 1e6, (_number(zone / "max_energy_range_uj") or 0.0) / 1e6


def _nvml_gpus() -> Iterator[tuple[str, float | None, float | None]]:
    """Yield name, °C and watts of each NVIDIA GPU that NVML knows, each ``None`` where it does not say."""
    nvml, handles = _nvml()
    for number, handle in enumerate(handles):
        celsius = _ask(lambda gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU), handle)
        milliwatts = _ask(lambda gpu: nvml.nvmlDeviceGetPowerUsage(gpu), handle)
        yield f"GPU {number}", celsius, None if milliwatts is None else milliwatts / 1e3


@cache
def _nvml() -> tuple[Any, tuple[Any, ...]]:
    """Return NVML and the handles of its GPUs; none where the package ``nvidia-ml-py`` or the driver is missing."""
    try:
        import pynvml  # type: ignore[import-not-found,import-untyped,unused-ignore]

        pynvml.nvmlInit()
        return pynvml, tuple(pynvml.nvmlDeviceGetHandleByIndex(k) for k in range(pynvml.nvmlDeviceGetCount()))
    except Exception:  # missing, or whatever a driver may answer: a sensor is never worth an error
        return None, ()


def _ask(question: Any, handle: Any) -> float | None:
    try:
        return float(question(handle))
    except Exception:  # NVML's exceptions are known only to the package itself; a Jetson's GPU answers few questions
        return None


def _numbered(folder: Path, pattern: str) -> list[Path]:
    """Return what fits a pattern in the order of the numbers in the names."""
    try:
        return sorted(folder.glob(pattern), key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])
    except OSError:
        return []


def _free_name(name: str, taken: dict[str, float]) -> str:
    """Return ``name``, or with a number behind it where it is taken: boards have several sensors of one name."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} {number}"
    return free


def _number(path: Path) -> float | None:
    try:
        return float(path.read_bytes())
    except (OSError, ValueError):  # no rights, a part without power, or nothing there
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ") or None
    except OSError:
        return None
