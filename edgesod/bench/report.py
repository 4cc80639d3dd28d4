"""The report of a run over a source, as data and as text."""

from __future__ import annotations

from typing import Any

from edgesod.bench.environment import environment
from edgesod.bench.measure import MIN_ITERATIONS
from edgesod.bench.svg import counted
from edgesod.manifest import this_device
from edgesod.runtime import Runtime
from edgesod.stream import PipelineReport
from edgesod.timing import PAPER_FIGURES, paper_ratios


def run_report(runtime: Runtime, pipeline: PipelineReport, **what: Any) -> dict[str, Any]:
    """Return the JSON object of ``edgesod run``: speed, stages, and the ratio to each paper figure.

    Args:
        runtime: What ran.
        pipeline: What :func:`edgesod.stream.run_pipeline` measured.
        what: Further entries, such as input, output and effect.
    """
    return {
        "model": runtime.recipe.model,
        "size": list(runtime.recipe.size_hw),
        "precision": runtime.precision,
        "backend": runtime.backend,
        "threads": runtime.threads,
        "frames": pipeline.frames,
        "dropped": pipeline.dropped,
        "late": pipeline.late,
        "reconnects": pipeline.reconnects,
        "interrupted": pipeline.interrupted,
        "fps": round(pipeline.fps, 3),
        "stages_ms": {name: summary.as_dict() for name, summary in pipeline.stages_ms.items()},
        "frame_age_ms": {name: summary.as_dict() for name, summary in pipeline.frame_age_ms.items()},
        "paper": paper_ratios(pipeline.fps),
        "environment": environment(this_device(), runtime.facts),
    } | what


def run_report_text(report: dict[str, Any]) -> tuple[str, list[tuple[Any, ...]], list[str]]:
    """Return a report as a headline, rows of ``(stage, p50, p90, p95, p99)`` in ms, and a line per paper figure.

    A picture or two are no speed: where fewer frames were seen than ``edgesod bench`` would take, nothing is set beside the papers.
    """
    height, width = report["size"]
    who = f"{report['model']} {height}×{width} {report['precision']}, {report['backend']} on {report['environment']['cpu']}"
    headline = f"{who}: {counted(report['frames'], 'frame')}, {report['fps']:.1f} fps end to end"
    headline += "".join(f", {report[what]} {what}" for what in ("dropped", "late") if report[what])
    headline += f", {counted(report['reconnects'], 'reconnect')}" if report["reconnects"] else ""
    times_ms = report["stages_ms"] | {f"age at {name}": age for name, age in report["frame_age_ms"].items()}
    rows = [(name, s["p50"], s["p90"], s["p95"], s["p99"]) for name, s in times_ms.items()]
    if report["frames"] < MIN_ITERATIONS:
        return headline, rows, []
    lines = [
        f"{report['fps']:.1f} fps is {ratio:.2f} × the paper's {figure.fps:g} fps of {figure.model} "
        f"({figure.size}×{figure.size}, FP32, {figure.device}, network only)"
        for figure, ratio in zip(PAPER_FIGURES, report["paper"].values(), strict=True)
    ]
    return headline, rows, lines
