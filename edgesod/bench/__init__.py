"""Measuring engines by trtexec's rules, and setting the numbers beside the papers'."""

from __future__ import annotations

from edgesod.bench.measure import BenchReport, bench
from edgesod.bench.report import run_report, run_report_text

__all__ = ["BenchReport", "bench", "run_report", "run_report_text"]
