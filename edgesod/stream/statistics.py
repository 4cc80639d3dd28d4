"""How a run is going: fed by the pipeline's threads, read by whoever wants to know, at any time."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgesod.stream.base import Source
from edgesod.stream.latencies import Latencies
from edgesod.timing import LatencySummary

_RECENT = 100
_FPS_WINDOW_S = 2.0
_ORDER = ("capture", "preprocess", "inference", "postprocess")

INFERENCE, RENDER, SINK, DONE = "inference", "render", "sink", "done"
"""The hand-overs at which a frame's age is measured: inference, rendering and the sinks take it, the sinks are done with it."""


class LiveStatistics:
    """What a run has done so far and how fast it goes now; its memory does not grow. Any thread may call anything."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stages: dict[str, Latencies] = defaultdict(Latencies)
        self._ages: dict[str, Latencies] = defaultdict(Latencies)
        self._done_at_s: deque[float] = deque()
        self._sources: Sequence[Source] = ()
        self._begun_s = 0.0
        self._ended_s = 0.0
        self._last_done_s = time.perf_counter()
        self._frames = 0
        self._dropped = 0
        self._late = 0
        self._size_hw: tuple[int, int] | None = None

    # -- the pipeline's side

    def begin(self, sources: Sequence[Source]) -> None:
        """Say that a run over ``sources`` starts now."""
        with self._lock:
            self._sources = tuple(sources)
            self._begun_s = self._last_done_s = time.perf_counter()

    def end(self) -> None:
        """Say that the run is over, whatever ended it; safe to call twice."""
        with self._lock:
            self._ended_s = self._ended_s or time.perf_counter()

    def add_stages(self, times_ms: Mapping[str, float]) -> None:
        """Take how long stages took for a frame, in milliseconds."""
        with self._lock:
            for stage, value_ms in times_ms.items():
                self._stages[stage].add(value_ms)

    def add_age(self, hand_over: str, age_s: float) -> None:
        """Take how old a frame was when it was handed over, in seconds since it was complete."""
        with self._lock:
            self._ages[hand_over].add(age_s * 1e3)

    def add_dropped(self, num: int = 1) -> None:
        """Count frames of a live source that a newer one overtook before inference."""
        with self._lock:
            self._dropped += num

    def add_late(self, num: int = 1) -> None:
        """Count frames of a live source whose result a newer one overtook before the sinks were free."""
        with self._lock:
            self._late += num

    def add_done(self, size_hw: tuple[int, int]) -> None:
        """Count a frame that went all the way."""
        now_s = time.perf_counter()
        with self._lock:
            self._frames += 1
            self._last_done_s = now_s
            self._size_hw = size_hw
            self._done_at_s.append(now_s)
            self._forget(now_s)

    # -- the reader's side

    @property
    def frames(self) -> int:
        """Frames that went all the way."""
        return self._frames

    @property
    def seconds_since_frame(self) -> float:
        """Since a frame went all the way; since the run began, before the first."""
        return time.perf_counter() - self._last_done_s

    def stages_ms(self) -> dict[str, LatencySummary]:
        """Latency by stage over the last :data:`~edgesod.stream.latencies.LIMIT` frames, in the order of the pipeline."""
        with self._lock:
            return {name: summary for name in self._stage_names() if (summary := self._stages[name].summary())}

    def frame_age_ms(self) -> dict[str, LatencySummary]:
        """Age of the frames at each hand-over, over as many."""
        with self._lock:
            return {name: summary for name, ages in self._ages.items() if (summary := ages.summary())}

    def snapshot(self) -> dict[str, Any]:
        """Return how the run is going, ready for JSON.

        Returns:
            ``state`` (``starting``, ``running``, ``reconnecting`` or ``ended``), ``source`` (printable), ``frames``, ``dropped``
            and ``late`` (see :class:`~edgesod.stream.pipeline.PipelineReport`), ``reconnects``, ``fps`` over the last two
            seconds, ``uptime_s``, ``stages_ms`` with ``p50`` and ``p95`` of the last 100 frames by stage, ``frame_age_ms`` with
            ``p50``, ``p95`` and ``newest`` by hand-over, ``size_hw`` (height and width of the last frame, or ``None``).
        """
        now_s = time.perf_counter()
        with self._lock:
            until_s = self._ended_s or now_s
            uptime_s = until_s - self._begun_s if self._begun_s else 0.0
            self._forget(now_s)
            stages_ms = {name: _brief(self._stages[name]) for name in self._stage_names()}
            ages_ms = {name: _brief(ages) | {"newest": round(ages.latest(1)[0], 3)} for name, ages in self._ages.items()}
            return {
                "state": self._state(),
                "source": ", ".join(source.name for source in self._sources),
                "frames": self._frames,
                "dropped": self._dropped,
                "late": self._late,
                "reconnects": sum(source.num_reconnects for source in self._sources),
                "fps": round(len(self._done_at_s) / max(min(uptime_s, _FPS_WINDOW_S), 1e-3), 2),
                "uptime_s": round(uptime_s, 3),
                "stages_ms": stages_ms,
                "frame_age_ms": ages_ms,
                "size_hw": list(self._size_hw) if self._size_hw else None,
            }

    def _state(self) -> str:
        if self._ended_s:
            return "ended"
        if any(source.state == "reconnecting" for source in self._sources):
            return "reconnecting"
        return "running" if self._frames else "starting"

    def _stage_names(self) -> list[str]:
        return sorted(self._stages, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))

    def _forget(self, now_s: float) -> None:
        while self._done_at_s and self._done_at_s[0] < now_s - _FPS_WINDOW_S:
            self._done_at_s.popleft()


def _brief(latencies: Latencies) -> dict[str, float]:
    p50, p95 = np.percentile(latencies.latest(_RECENT), (50, 95))
    return {"p50": round(float(p50), 3), "p95": round(float(p95), 3)}
