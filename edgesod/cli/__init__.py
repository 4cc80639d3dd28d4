"""The command line: one file per command, one place that prints, one that turns errors into sentences and exit codes."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line (:func:`edgesod.cli.app.main`); Ctrl-C while Python still reads its files ends it as later on."""
    try:
        from edgesod.cli.app import main as run
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    run()
