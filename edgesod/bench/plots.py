"""The plots of a benchmark's page, each from the JSON object and the samples of a measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from edgesod.bench.svg import Axis, Plot, number, span
from edgesod.timing import PAPER_FIGURES

MAX_BINS = 60
MAX_POINTS = 600
"""Points that a timeline draws; more are gathered, and each keeps its median and its slowest."""

STAGES = {"preprocess": "one", "inference": "two", "postprocess": "three", "mask": "four"}
"""What a frame's time is made of, and the class that draws it."""


def fps_bars(network_fps: float, end_to_end_fps: float) -> str:
    """Return this engine's frames a second beside the papers', as rows of HTML."""
    rows = [("this engine, end to end", end_to_end_fps, "one"), ("this engine, network alone", network_fps, "one light")]
    rows += [(f"{figure.model}, {figure.size}², {figure.device}", figure.fps, "paper") for figure in PAPER_FIGURES]
    longest = max(fps for _, fps, _ in rows)
    bars = "\n".join(
        f'<div class="row"><span class="name">{escape(name)}</span><span class="track"><span class="bar {kind}" '
        f'style="width:{100 * fps / longest:.2f}%"></span></span><span class="value">{number(round(fps, 1))}</span></div>'
        for name, fps, kind in rows
    )
    return f'<div class="bars">\n{bars}\n</div>'


def stage_bar(stages_ms: dict[str, dict[str, float]]) -> str:
    """Return what a frame's mean time is made of, as one divided bar of HTML with its legend."""
    parts = [(name, stages_ms[name]["mean"], kind) for name, kind in STAGES.items() if name in stages_ms]
    total = sum(mean for _, mean, _ in parts) or 1.0
    bar = "".join(
        f'<span class="bar {kind}" style="width:{100 * mean / total:.3f}%" title="{escape(name)} {mean:.2f} ms"></span>'
        for name, mean, kind in parts
    )
    legend = "".join(
        f'<span><i class="key {kind}"></i>{escape(name)} {mean:.2f} ms ({mean / total:.1%})</span>'
        for name, mean, kind in parts
    )
    return f'<div class="stack">{bar}</div>\n<div class="legend">{legend}</div>'


def histogram(values_ms: Sequence[float]) -> str:
    """Return how often each latency came, with its percentiles."""
    values = np.asarray(values_ms, np.float64)
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    high = min(float(values.max()), float(p99) * 1.5)  # one hiccup must not squeeze all else into a single bar
    shown = values[values <= high]
    bins = min(MAX_BINS, max(8, int(np.sqrt(shown.size)) * 2))
    counts, edges = np.histogram(shown, bins)
    low, high = float(edges[0]), float(edges[-1])
    room = (high - low) * 0.2  # for the words beside the last line
    plot = Plot(
        "latency histogram",
        Axis(low - room / 6, high + room, "end to end, ms"),
        Axis(0, float(counts.max()) * 1.25, "frames", is_whole=True),
    )
    for count, left, right in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        plot.bar(left, right, count, "one", f"{left:.2f} to {right:.2f} ms: {count}")
    for row, (name, value) in enumerate((("p50", p50), ("p95", p95), ("p99", p99))):
        plot.vertical(float(value), f"{name} {value:.2f} ms", "two", row)
    beyond = int((values > high).sum())
    note = f'<p class="note">{beyond} slower than shown, up to {values.max():.1f} ms</p>' if beyond else ""
    return plot.svg() + note


def timeline(at_s: Sequence[float], values_ms: Sequence[float]) -> str:
    """Return latency over time: the median of neighbours, and the slowest of them."""
    groups = np.array_split(np.arange(len(values_ms)), min(MAX_POINTS, len(values_ms)))
    values, times = np.asarray(values_ms, np.float64), np.asarray(at_s, np.float64)
    median = [(float(times[group[-1]]), float(np.median(values[group]))) for group in groups]
    slowest = [(float(times[group[-1]]), float(values[group].max())) for group in groups]
    plot = Plot(
        "latency over time",
        Axis(0, float(times[-1]), "seconds"),
        Axis(0, max(ms for _, ms in slowest) * 1.1, "end to end, ms"),
    )
    if len(values_ms) > MAX_POINTS:
        plot.line(slowest, "muted", is_thin=True)
    plot.line(median, "one")
    return plot.svg()


def roofline(found: dict[str, Any]) -> str:
    """Return the machine's roofs and where the engine stands below them."""
    peaks, precision, intensity = found["peaks"], found["precision"], found["intensity"]
    roofs = {name: peaks[f"{name}_gops"] for name in dict.fromkeys(("fp32", "int8", precision))}
    bandwidth, best = peaks["memory_gb_s"], max(roofs.values())
    low_x = min(intensity, min(roofs.values()) / bandwidth) / 4
    high_x = max(intensity, best / bandwidth) * 6
    low_y = min(found["gops"], *roofs.values()) / 8
    plot = Plot(
        "roofline",
        Axis(low_x, high_x, "operations a byte of traffic", is_log=True),
        Axis(low_y, best * 3, "10⁹ operations a second", is_log=True),
    )
    start = max(low_x, low_y / bandwidth)
    plot.line([(start, start * bandwidth), (best / bandwidth, best)], "muted")
    beside = (start * best / bandwidth) ** 0.5  # halfway up the slope
    plot.label(beside * 1.2, beside * bandwidth / 1.7, f"memory {bandwidth:.0f} GB/s", "muted")
    for name, roof in roofs.items():
        kind = "two" if name == precision else "muted"
        plot.line([(roof / bandwidth, roof), (high_x, roof)], kind)
        plot.label(high_x, roof, f"{name.upper()} {number(round(roof))} Gop/s", kind, anchor="end")
    limit = min(roofs[precision], intensity * bandwidth)
    plot.line([(intensity, found["gops"]), (intensity, limit)], "one", is_thin=True)
    tip = f"{found['gops']:.0f} Gop/s at {intensity:.0f} operations a byte"
    plot.dot(intensity, found["gops"], "one", f"{found['share']:.0%} of the limit", tip, below=True)
    return plot.svg()


def sweep(points: Sequence[dict[str, Any]]) -> str:
    """Return throughput against latency, one point a setting."""
    fps, ms = [p["fps"] for p in points], [p["latency_ms"]["p50"] for p in points]
    plot = Plot(
        "throughput against latency",
        Axis(0, max(fps) * 1.25, "frames a second, all streams together"),
        Axis(0, max(ms) * 1.3, "end to end p50, ms"),
    )
    for point, x, y in zip(points, fps, ms, strict=True):
        plot.dot(
            x,
            y,
            "one" if point["streams"] == 1 else "three",
            f"{point['streams']} × {point['threads']}",
            f"{x:.1f} fps, {y:.1f} ms",
        )
    return plot.svg() + '<p class="note">streams × threads of each</p>'


def over_time(title: str, unit: str, at_s: Sequence[float], series: Mapping[str, Sequence[float | None]]) -> str:
    """Return one line or several over minutes, with a legend where there are several."""
    kinds = ("one", "two", "three", "four")
    known = {
        name: [(t / 60, v) for t, v in zip(at_s, values, strict=True) if v is not None]
        for name, values in list(series.items())[: len(kinds)]
    }
    low, high = span([v for points in known.values() for _, v in points], 0.25)
    plot = Plot(title, Axis(0, at_s[-1] / 60, "minutes"), Axis(max(low, 0.0), high, unit))
    for points, kind in zip(known.values(), kinds, strict=False):
        plot.line(points, kind)
    legend = "".join(f'<span><i class="key {kind}"></i>{escape(name)}</span>' for name, kind in zip(known, kinds, strict=False))
    return plot.svg() + (f'\n<div class="legend">{legend}</div>' if len(known) > 1 else "")
