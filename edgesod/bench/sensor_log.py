"""Temperatures, power and energy while something is measured."""

from __future__ import annotations

import threading
from collections.abc import Callable
from statistics import fmean
from types import TracebackType
from typing import Any

from edgesod.sensors import Sensors, read_sensors


class SensorLog:
    """Read the sensors at the beginning and end of a block, and in a thread in between.

    Args:
        read: Reads the sensors.
        every_s: Seconds between two readings; seldom enough not to show in a latency.
    """

    def __init__(self, read: Callable[[], Sensors] = read_sensors, every_s: float = 1.0) -> None:
        self._read = read
        self._every_s = every_s
        self._readings: list[Sensors] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="edgesod-sensors", daemon=True)

    def __enter__(self) -> SensorLog:
        self._readings.append(self._read())
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._is_over.set()
        self._thread.join()
        self._readings.append(self._read())

    def report(self, frames: int) -> dict[str, Any]:
        """Return what was read as one JSON-ready object, once the block is over.

        Args:
            frames: How many were computed within the block.

        Returns:
            ``temperatures_c`` by sensor with first, last and highest; ``power_w`` by rail, the mean; ``energy_j_per_frame`` by
            rail. Rails overlap, so they are not to be added up. Empty where the machine tells nothing.
        """
        first, last = self._readings[0], self._readings[-1]
        seconds = last.read_at_s - first.read_at_s
        power = {
            rail: fmean(reading.power_w[rail] for reading in self._readings if rail in reading.power_w) for rail in last.power_w
        }
        energy = {rail: watts * seconds for rail, watts in power.items()} | last.energy_since(first)
        if seconds > 0:
            power |= {zone: joules / seconds for zone, joules in last.energy_since(first).items()}
        seen = {
            name: [r.temperatures_c[name] for r in self._readings if name in r.temperatures_c] for name in last.temperatures_c
        }
        return {
            "temperatures_c": {
                name: {"first": values[0], "last": values[-1], "highest": max(values)} for name, values in seen.items()
            },
            "power_w": {rail: round(watts, 4) for rail, watts in power.items()},
            "energy_j_per_frame": {rail: round(joules / frames, 6) for rail, joules in energy.items()},
        }

    def _follow(self) -> None:
        while not self._is_over.wait(self._every_s):
            self._readings.append(self._read())
