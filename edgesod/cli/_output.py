"""The only file that prints: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol


class Update(Protocol):
    """Moves a bar: so many of so many done, and a few words on how it goes."""

    def __call__(self, done: int, total: int | None, detail: str = "") -> None: ...


class _Manner:
    """How this program speaks: one of a kind, as its two streams are."""

    log_is_json = False
    stdout_is_taken = False


_manner = _Manner()


def log_as_json() -> None:
    """Write every line of the log as one JSON object: ``time``, ``level``, ``message``, and ``hint`` with an error.

    Where results go to stderr too, each is such a line, as ``result``.
    """
    _manner.log_is_json = True


def log_is_json() -> bool:
    """Tell whether the log is written as JSON."""
    return _manner.log_is_json


def results_are_logged() -> bool:
    """Tell whether results have to be objects, because they go where the log goes as JSON."""
    return _manner.log_is_json and _manner.stdout_is_taken


def leave_stdout_alone() -> None:
    """Print results to stderr too: something else goes out on stdout."""
    _manner.stdout_is_taken = True


def pass_on_the_log() -> None:
    """Print what edgesod's own parts log."""
    logger = logging.getLogger("edgesod")
    if not logger.handlers:
        logger.addHandler(_Handler())
        logger.setLevel(logging.INFO)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _log(record.levelname.lower(), record.getMessage())


def _log(level: str, message: str, hint: str = "") -> None:
    if _manner.log_is_json:
        _log_object(level, message, **({"hint": hint} if hint else {}))
        return
    print(f"edgesod: error: {message}" if level == "error" else message, file=sys.stderr, flush=True)
    if hint:
        print(f"  try: {hint}", file=sys.stderr, flush=True)


def _log_object(level: str, message: str, **more: Any) -> None:
    line = {"time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), "level": level, "message": message}
    print(json.dumps(line | more, ensure_ascii=False), file=sys.stderr, flush=True)


def result(text: str) -> None:
    """Print a result."""
    print(text, flush=True, file=sys.stderr if _manner.stdout_is_taken else sys.stdout)


def result_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object as the result."""
    if results_are_logged():
        _log_object("info", "result", result=value)
        return
    result(json.dumps(value, indent=1, ensure_ascii=False))


def note(text: str) -> None:
    """Tell the person at the keyboard something that is not the result."""
    _log("info", text)


def error(message: str, hint: str = "") -> None:
    """Say what went wrong and what to do about it."""
    _log("error", message, hint)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table as the result; the first column is text, numbers in the others line up to the right.

    Columns without names get no line for them.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, show_header=any(columns))
    for k, column in enumerate(columns):
        numeric = k > 0 and all(isinstance(row[k], int | float) or row[k] in ("", "–") for row in rows)
        drawn.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(_cell(value)) for value in row))
    if title:
        result(title)
    console = Console(stderr=_manner.stdout_is_taken, highlight=False)
    if not console.is_terminal:
        console.width = 200
    console.print(drawn)


@contextmanager
def progress(what: str, *, is_shown: bool = True) -> Iterator[Update]:
    """Show a bar with the time left on stderr; yields what moves it. Where stderr is no terminal, a line a minute says as much.

    ``is_shown`` is for processes of which another shows it.
    """
    if not is_shown:
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    console = Console(stderr=True)
    if _manner.log_is_json or not console.is_terminal:
        yield _Lines(what)
        return
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None, detail="")

        def update(done: int, total: int | None, detail: str = "") -> None:
            bar.update(task, completed=done, total=total, detail=detail)

        yield update


class _Lines:
    """What a bar says, in a line now and then; nothing where the end is not known."""

    EVERY_S = 60.0

    def __init__(self, what: str) -> None:
        self._what = what
        self._total: int | None = None

    def __call__(self, done: int, total: int | None, detail: str = "") -> None:
        now = time.monotonic()
        if total is None or total != self._total:
            self._total, self._from, self._since, self._told = total, done, now, now
        elif now - self._told >= self.EVERY_S:
            self._told = now
            moved = done - self._from
            left = f", {timedelta(seconds=round((total - done) * (now - self._since) / moved))} left" if moved > 0 else ""
            note(f"{self._what}: {done:,} of {total:,}{left}{', ' if detail else ''}{detail}")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"
    return str(value)
