"""The command line: one file per command, one place that prints, one that turns errors into sentences and exit codes."""

from __future__ import annotations

from edgesod.cli.app import main

__all__ = ["main"]
