"""Print the report of a run."""

from __future__ import annotations

from typing import Any

from edgesod.cli import _output


def print_run_report(report: dict[str, Any], *, as_json: bool) -> None:
    """Print a report of :func:`edgesod.bench.run_report` as a table and sentences, or as one JSON object."""
    from edgesod.bench import run_report_text

    if as_json or _output.results_are_logged():
        _output.result_json(report)
        return
    headline, rows, lines = run_report_text(report)
    _output.table(headline, ("stage", "p50 ms", "p90", "p95", "p99"), rows)
    for line in lines:
        _output.result(line)
