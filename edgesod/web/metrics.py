"""A run's numbers in the text format of Prometheus, version 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats).

Names and units follow its conventions: base units (seconds, celsius, watts), ``_total`` for what only grows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgesod import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_STATES = ("starting", "running", "reconnecting", "ended")
_ENGINE = ("model", "size", "precision", "backend")
_QUANTILES = {"p50": "0.5", "p95": "0.95"}

Samples = list[tuple[dict[str, str], float]]


def as_prometheus(state: Mapping[str, Any]) -> str:
    """Return what :meth:`~edgesod.web.monitor.Monitor.state` says as text for Prometheus."""
    return "".join(
        line
        for name, kind, help_text, samples in _metrics(state)
        if samples
        for line in (
            f"# HELP edgesod_{name} {help_text}\n# TYPE edgesod_{name} {kind}\n",
            *(f"edgesod_{name}{_labels(labels)} {value!r}\n" for labels, value in samples),
        )
    )


def _metrics(state: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Samples]]:
    now, sensors = state["statistics"], state["sensors"]
    yield (
        "info",
        "gauge",
        "The version and the engine that run, and where frames come from.",
        [
            (
                {
                    "version": __version__,
                    "source": now["source"],
                    **{name: str(state["engine"].get(name, "")) for name in _ENGINE},
                },
                1,
            )
        ],
    )
    yield "state", "gauge", "1 for the state the run is in.", [({"state": s}, int(s == now["state"])) for s in _STATES]
    yield "uptime_seconds", "gauge", "Since the run began.", [({}, now["uptime_s"])]
    yield "frames_total", "counter", "Frames that went all the way.", [({}, now["frames"])]
    yield "frames_dropped_total", "counter", "Frames of a live source that a newer one overtook.", [({}, now["dropped"])]
    yield "frames_late_total", "counter", "Results that a newer one overtook before the sinks were free.", [({}, now["late"])]
    yield "source_reconnects_total", "counter", "How often a lost source came back.", [({}, now["reconnects"])]
    yield "frames_per_second", "gauge", "Frames that went all the way, over the last two seconds.", [({}, now["fps"])]
    yield (
        "stage_duration_seconds",
        "summary",
        "What each stage took, over the last frames.",
        _quantiles("stage", now["stages_ms"]),
    )
    yield (
        "frame_age_seconds",
        "summary",
        "Age of frames where they are handed on, over the last ones.",
        _quantiles("handover", now["frame_age_ms"]),
    )
    yield "temperature_celsius", "gauge", "What the board's sensors say.", _by_name("sensor", sensors["temperatures_c"])
    yield "power_watts", "gauge", "What the board draws, by rail; rails overlap.", _by_name("rail", sensors["power_w"])
    yield "page_viewers", "gauge", "How many look at the live picture.", [({}, state["viewers"])]


def _quantiles(label: str, summaries_ms: Mapping[str, Mapping[str, float]]) -> Samples:
    return [
        ({label: name, "quantile": quantile}, summary[key] / 1e3)
        for name, summary in summaries_ms.items()
        for key, quantile in _QUANTILES.items()
    ]


def _by_name(label: str, values: Mapping[str, float]) -> Samples:
    return [({label: name}, value) for name, value in values.items()]


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}" if labels else ""


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
