"""A measurement as one HTML page that opens anywhere, without a network: style, plots and numbers are in the file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from edgesod.bench import plots
from edgesod.bench.measure import BenchReport
from edgesod.bench.svg import counted, number
from edgesod.files import write_atomically

_STYLE = Path(__file__).with_name("page.css")
_WORDS = {"memory_gb": "memory, GB", "load_1min": "load of the last minute", "clocks_mhz": "clocks, MHz"}
# whatever the page holds, a browser is told to fetch nothing for it
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def write_page(path: str | Path, value: dict[str, Any], report: BenchReport) -> None:
    """Write the page.

    Args:
        path: The HTML file.
        value: The JSON object of ``edgesod bench``.
        report: What was measured, for its single samples.

    Raises:
        OutputError: The file cannot be written.
    """
    write_atomically(path, page(value, report).encode())


def page(value: dict[str, Any], report: BenchReport) -> str:
    """Return the page as text; see :func:`write_page`."""
    height, width = value["size"]
    name = f"{value['model']} {height}×{width} {value['precision'].upper()}"
    environment = value["environment"]
    frame_height, frame_width = value["frame"]
    threads = f", {counted(value['threads'], 'thread')}" if value["threads"] else ""
    sub = (
        f"{value['backend']} on {environment['cpu']}, {counted(environment['cores'], 'core')}{threads}; "
        f"frames of {frame_width}×{frame_height}; {environment['measured_at'][:16].replace('T', ' ')} UTC"
    )
    warnings = "".join(f'<p class="warning">{escape(text)}</p>' for text in value["warnings"])
    cards = "\n".join(_cards(value, report))
    raw = escape(json.dumps(value, indent=1, ensure_ascii=False))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(name)}: edgesod bench</title>
<style>
{_STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
<h1>{escape(name)}</h1>
<p class="sub">{escape(sub)}</p>
{warnings}
<div class="tiles">
{_tiles(value)}
</div>
<div class="grid">
{cards}
</div>
<details><summary>All numbers, as JSON</summary><pre>{raw}</pre></details>
</main>
</body>
</html>
"""


def _tiles(value: dict[str, Any]) -> str:
    latency, whole, found = value["latency_ms"], value["stages_ms"]["end_to_end"], value["roofline"]
    tiles = [
        (f"{value['throughput_fps']:.1f}", "frames a second, end to end"),
        (f"{1e3 / latency['p50']:.1f}", "frames a second, network alone"),
        (f"{whole['p50']:.1f} ms", "end to end, p50"),
        (f"{whole['p99']:.1f} ms", "end to end, p99"),
    ]
    if found and "share" in found:
        tiles.append((f"{found['share']:.0%}", f"of the {found['precision'].upper()} limit, {found['bound_by']}-bound"))
    if value["rss_mb"] is not None:
        tiles.append((f"{value['rss_mb']:.0f} MB", "resident memory"))
    for rail, joules in list(value["sensors"]["energy_j_per_frame"].items())[:1]:
        tiles.append((f"{joules * 1e3:.0f} mJ", f"a frame, {rail} ({value['sensors']['power_w'][rail]:.1f} W)"))
    return "\n".join(f'<div class="tile"><b>{escape(big)}</b><span>{escape(small)}</span></div>' for big, small in tiles)


def _cards(value: dict[str, Any], report: BenchReport) -> Iterable[str]:
    samples, found = report.samples_ms["end_to_end"], value["roofline"]
    yield _card(
        "Beside the papers",
        "Frames a second. The papers' are PyTorch in FP32, network alone, on another machine.",
        plots.fps_bars(1e3 / value["latency_ms"]["p50"], value["throughput_fps"]),
    )
    yield _card("What a frame's time is made of", "Mean, frame in memory to mask at frame size.", _stages(value["stages_ms"]))
    yield _card("Latency", f"{len(samples)} frames.", plots.histogram(samples))
    yield _card("Over time", "Steady is flat.", plots.timeline(report.at_s, samples))
    if found and "share" in found:
        said = (
            f"{found['macs'] / 1e9:.2f} GMACs, {found['bytes'] / 1e6:.0f} MB of traffic; at least "
            f"{max(found['compute_ms'], found['memory_ms']):.2f} ms, measured {found['measured_ms']:.2f} ms. Limits: {found['peaks_from']}."
        )
        yield _card("Roofline", said, plots.roofline(found))
    if "sweep" in value and value["sweep"]["points"]:
        yield _card("Throughput against latency", value["sweep"]["note"], plots.sweep(value["sweep"]["points"]))
    if "soak" in value:
        yield from _soak_cards(value["soak"])
    yield _card("Measured on", "", _facts(value), is_wide=True)


def _soak_cards(found: dict[str, Any]) -> Iterable[str]:
    windows = found["windows"]
    at_s = [window["at_s"] for window in windows]
    said = f"{found['minutes']:.1f} minutes, {found['frames']} frames: {found['fps_drift']:+.2%} by a straight line."
    fps = plots.over_time("speed over the soak", "frames a second", at_s, {"fps": [window["fps"] for window in windows]})
    yield _card("Soak: speed", said, fps)
    if windows[-1]["rss_mb"] is not None:
        said = f"{found['rss_drift']:+.2%}, {found['rss_mb_per_hour']:+.2f} MB an hour."
        memory = plots.over_time("memory over the soak", "MB resident", at_s, {"rss": [window["rss_mb"] for window in windows]})
        yield _card("Soak: memory", said, memory)
    for key, title, unit in (("temperatures_c", "Soak: temperature", "°C"), ("power_w", "Soak: power", "W")):
        names = list(windows[-1][key])
        if names:
            series = {name: [window[key].get(name) for window in windows] for name in names}
            yield _card(title, "", plots.over_time(title, unit, at_s, series))


def _stages(stages_ms: dict[str, dict[str, float]]) -> str:
    columns = ("mean", "p50", "p90", "p95", "p99")
    head = "".join(f"<th>{name}</th>" for name in columns)
    rows = "".join(
        f"<tr><td>{escape(stage.replace('_', ' '))}</td>{''.join(f'<td>{found[name]:.2f}</td>' for name in columns)}</tr>"
        for stage, found in stages_ms.items()
    )
    table = f'<div class="scroll"><table><tr><th>ms</th>{head}</tr>{rows}</table></div>'
    return f"{plots.stage_bar(stages_ms)}\n{table}"


def _facts(value: dict[str, Any]) -> str:
    environment = {key: said for key, said in value["environment"].items() if key != "measured_at"}  # that is at the top
    versions = environment.pop("versions")
    facts = {_WORDS.get(key, key.replace("_", " ")): said for key, said in environment.items() if said not in (None, {}, "")}
    facts |= {f"{name}, at most": f"{seen['highest']:.1f} °C" for name, seen in value["sensors"]["temperatures_c"].items()}
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    rows = "".join(f"<tr><td>{escape(key)}</td><td>{escape(_said(said))}</td></tr>" for key, said in facts.items())
    return f'<table class="facts">{rows}</table>'


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_said(one)}" for key, one in value.items())
    return number(value) if isinstance(value, int | float) else str(value)


def _card(title: str, hint: str, body: str, *, is_wide: bool = False) -> str:
    said = f'<p class="hint">{escape(hint)}</p>' if hint else ""
    body = body.replace("<svg", '<div class="scroll"><svg').replace("</svg>", "</svg></div>")  # a phone is too narrow for plots
    return f'<section class="card{" wide" if is_wide else ""}"><h2>{escape(title)}</h2>{said}\n{body}\n</section>'
