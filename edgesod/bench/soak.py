"""Run an engine for minutes or days and see whether it stays as it was: speed, memory, temperature, power."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesod.bench.environment import resident_mb
from edgesod.runtime import Runtime
from edgesod.sensors import Sensors, read_sensors
from edgesod.timing import LatencySummary

SETTLING = 0.1
"""Share of a soak, at its beginning, that slopes leave out: caches fill and a chip gets warm."""
MAX_WINDOWS = 240
SHORTEST_WINDOW_S = 5.0
FPS_DRIFT = 0.05
"""Loss of speed over a soak above which there is a warning."""
RSS_GROWTH = 0.02
"""Growth of resident memory over a soak above which there is a warning."""


@dataclass(frozen=True)
class Window:
    """What was measured within one stretch of a soak.

    Attributes:
        at_s: The stretch's end, in seconds from the beginning.
        fps: Frames a second end to end.
        p50_ms, p99_ms: End to end.
        rss_mb: Resident memory at the end of the stretch.
        temperatures_c: At its end.
        power_w: Mean over the stretch of what counts energy, else as it was at its end.
    """

    at_s: float
    fps: float
    p50_ms: float
    p99_ms: float
    rss_mb: float | None
    temperatures_c: dict[str, float]
    power_w: dict[str, float]


@dataclass(frozen=True)
class SoakReport:
    """A soak, window by window.

    Attributes:
        windows: In their order; at least one.
        frames: How many were computed.
        interrupted: Whether Ctrl-C ended it before its time.
    """

    windows: tuple[Window, ...]
    frames: int
    interrupted: bool

    @property
    def fps_drift(self) -> float:
        """Change of speed over the soak as a share, by a straight line through the windows; negative is slower."""
        return self._drift([window.fps for window in self.windows])

    @property
    def rss_drift(self) -> float:
        """Change of resident memory over the soak as a share; 0 where the system does not tell it."""
        return self._drift([window.rss_mb or 0.0 for window in self.windows])

    @property
    def warnings(self) -> tuple[str, ...]:
        """What did not stay as it was."""
        found = []
        if self.fps_drift < -FPS_DRIFT:
            found.append(f"speed fell by {-self.fps_drift:.1%} over the soak: heat, or something else runs here")
        if self.rss_drift > RSS_GROWTH:
            found.append(f"resident memory grew by {self.rss_drift:.1%} over the soak")
        return tuple(found)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as one JSON-ready object; slopes are by the hour."""
        hours = [window.at_s / 3600 for window in self.windows]
        return {
            "minutes": round(self.windows[-1].at_s / 60, 3),
            "frames": self.frames,
            "interrupted": self.interrupted,
            "fps_drift": round(self.fps_drift, 5),
            "fps_per_hour": round(slope(hours, [window.fps for window in self.windows]), 5),
            "rss_drift": round(self.rss_drift, 5),
            "rss_mb_per_hour": round(slope(hours, [window.rss_mb or 0.0 for window in self.windows]), 5),
            "highest_c": {
                name: max(window.temperatures_c.get(name, -273.15) for window in self.windows)
                for name in self.windows[-1].temperatures_c
            },
            "windows": [vars(window) for window in self.windows],
        }

    def _drift(self, values: Sequence[float]) -> float:
        mean = float(np.mean(values))
        seconds = [window.at_s for window in self.windows]
        return slope(seconds, values) * (seconds[-1] - seconds[0]) / mean if mean else 0.0


def soak(
    runtime: Runtime,
    frame: NDArray[np.uint8],
    minutes: float,
    *,
    read: Callable[[], Sensors] = read_sensors,
    on_progress: Callable[[int, int | None, str], None] = lambda _done, _total, _detail: None,
) -> SoakReport:
    """Run a frame through ``runtime`` again and again for some minutes.

    Memory stays bounded: of each window only the summary is kept.

    Args:
        runtime: Warmed up.
        frame: uint8 BGR ``(H, W, 3)``.
        minutes: How long, but a frame at least; Ctrl-C ends it early, with what there is by then.
        read: Reads the sensors, once a window.
        on_progress: Told seconds done and in all, and how it goes.
    """
    total_s = minutes * 60
    window_s = max(min(SHORTEST_WINDOW_S, total_s / 10), total_s / MAX_WINDOWS)
    windows: list[Window] = []
    frames, interrupted = 0, False
    before, start = read(), time.perf_counter()
    while not interrupted and (not windows or time.perf_counter() - start < total_s):
        times_ms: list[float] = []
        began = time.perf_counter()
        try:
            while not times_ms or time.perf_counter() - began < window_s:
                one = time.perf_counter()
                _ = runtime(frame).mask
                times_ms.append((time.perf_counter() - one) * 1e3)
        except KeyboardInterrupt:
            interrupted = True
            if not times_ms and not windows:
                raise
        if not times_ms:
            break
        ended, now = time.perf_counter(), read()
        summary = LatencySummary.from_ms(times_ms)
        frames += summary.n
        fps = round(summary.n / (ended - began), 3)
        power = {rail: round(watts, 4) for rail, watts in now.power_since(before).items()}
        windows.append(Window(round(ended - start, 3), fps, summary.p50, summary.p99, resident_mb(), now.temperatures_c, power))
        before = now
        on_progress(round(ended - start), round(total_s), f"{fps:.1f} fps")
    return SoakReport(tuple(windows), frames, interrupted)


def slope(at: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of the straight line that fits best, the settling at the beginning left out; 0 for fewer than two points."""
    settled = [(x, y) for x, y in zip(at, values, strict=True) if x >= at[0] + SETTLING * (at[-1] - at[0])] if at else []
    if len(settled) < 2:
        return 0.0
    return round(float(np.polyfit([x for x, _ in settled], [y for _, y in settled], 1)[0]), 9) + 0.0  # no negative zero
