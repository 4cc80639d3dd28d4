"""What the page knows about a run: looked at once a second, kept for ten minutes, handed to whoever watches."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from edgesod.processing.effects import EFFECTS
from edgesod.processing.look import Look
from edgesod.sensors import Sensors, read_sensors
from edgesod.stream.statistics import LiveStatistics
from edgesod.timing import PAPER_FIGURES
from edgesod.web.newest import Ended, Newest

PERIOD_S = 1.0
SILENT_AFTER_S = 10.0
"""A run that shows no frame for so long is not healthy."""

_log = logging.getLogger("edgesod.web")
_HISTORY_S = 600
_PAPERS = [{"model": figure.model, "fps": figure.fps} for figure in PAPER_FIGURES]


class Monitor:
    """The numbers of a run.

    Args:
        statistics: Of the run.
        look: What the switches of the page change.

    Attributes:
        num_viewers: How many look at the pictures; told to the page, counted by whoever serves them.
        engine: What runs, by name; empty until it is known.
    """

    def __init__(self, statistics: LiveStatistics, look: Look) -> None:
        self.num_viewers = 0
        self.engine: dict[str, Any] = {}
        self._statistics = statistics
        self._look = look
        self._began_s = time.monotonic()
        self._history: deque[tuple[float, float, float | None]] = deque(maxlen=round(_HISTORY_S / PERIOD_S))
        self._sensors = Sensors()
        self._power_w: dict[str, float] = {}
        self._messages: Newest[bytes] = Newest()

    async def watch(self) -> None:
        """Look at everything once a second, until cancelled."""
        self._messages.attach(asyncio.get_running_loop())
        while True:
            try:
                await self._look_once()
            except Exception:  # a page that misses a second is worth more than one that stands still for a month
                _log.exception("the numbers of the run could not be read")
            await asyncio.sleep(PERIOD_S)

    def publish(self) -> None:
        """Tell everybody who watches how things are now."""
        self._messages.put(_event("state", self.state()))

    def end(self) -> None:
        """Tell everybody who watches that the run is over; from any thread, safe to call twice."""
        state = self.state()
        state["statistics"]["state"] = "ended"
        self._messages.put(_event("state", state))
        self._messages.end()

    def state(self) -> dict[str, Any]:
        """Return how things are now, ready for JSON.

        Returns:
            ``time_s`` since the page was opened, ``statistics`` (see
            :meth:`~edgesod.stream.statistics.LiveStatistics.snapshot`), ``look`` and the ``effects`` it may take, ``sensors`` with
            ``temperatures_c`` and ``power_w`` by name, ``papers`` with the figures to compare with, ``viewers``, and ``engine``
            with ``model``, ``size``, ``precision``, ``backend`` and the ``threshold`` that is its own, or nothing yet.
        """
        return {
            "time_s": self._time_s(),
            "statistics": self._statistics.snapshot(),
            "look": self._look.as_dict(),
            "effects": list(EFFECTS),
            "sensors": {"temperatures_c": self._sensors.temperatures_c, "power_w": self._power_w},
            "papers": _PAPERS,
            "viewers": self.num_viewers,
            "engine": self.engine,
        }

    def history(self) -> dict[str, Any]:
        """Return frames a second and the age of a frame when it left, in milliseconds, over the last ten minutes."""
        times_s, fps, ages_ms = zip(*self._history, strict=True) if self._history else ((), (), ())
        return {"time_s": times_s, "fps": fps, "frame_age_ms": ages_ms}

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Return whether frames still come, and what to say about it."""
        silent_s = self._statistics.seconds_since_frame
        state = self._statistics.snapshot()["state"]
        is_well = silent_s < SILENT_AFTER_S and state != "ended"
        return is_well, {"ok": is_well, "state": state, "seconds_since_frame": round(silent_s, 3)}

    async def events(self) -> AsyncIterator[bytes]:
        """Yield a ``text/event-stream``: the history once, then the state every second and whenever somebody changes it."""
        yield _event("history", self.history())
        number = 0
        while True:
            yield b""  # returns once the client has taken what was sent
            try:
                number, message = await self._messages.after(number)
            except Ended:
                return
            yield message

    async def _look_once(self) -> None:
        sensors = await asyncio.to_thread(read_sensors)
        self._power_w, self._sensors = sensors.power_since(self._sensors), sensors
        statistics = self._statistics.snapshot()
        if statistics["state"] not in ("starting", "ended"):
            self._history.append((self._time_s(), statistics["fps"], _age_ms(statistics)))
        self.publish()

    def _time_s(self) -> float:
        return round(time.monotonic() - self._began_s, 3)


def _event(name: str, value: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(value)}\n\n".encode()


def _age_ms(statistics: dict[str, Any]) -> float | None:
    """Return the usual age of a frame at the last hand-over."""
    ages = list(statistics["frame_age_ms"].values())
    return ages[-1]["p50"] if ages else None
