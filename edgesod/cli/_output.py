"""The only file that prints: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol


class Update(Protocol):
    """Moves a bar: so many of so many done, and a few words on how it goes."""

    def __call__(self, done: int, total: int | None, detail: str = "") -> None: ...


def result(text: str) -> None:
    """Print a result."""
    print(text, flush=True)


def result_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object as the result."""
    result(json.dumps(value, indent=1, ensure_ascii=False))


def note(text: str) -> None:
    """Tell the person at the keyboard something that is not the result."""
    print(text, file=sys.stderr, flush=True)


def error(message: str, hint: str = "") -> None:
    """Say what went wrong and what to do about it."""
    note(f"edgesod: error: {message}")
    if hint:
        note(f"  try: {hint}")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table as the result; the first column is text, numbers in the others line up to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD)
    for k, column in enumerate(columns):
        numeric = k > 0 and all(isinstance(row[k], int | float) or row[k] in ("", "–") for row in rows)
        drawn.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(_cell(value)) for value in row))
    if title:
        result(title)
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = 200
    console.print(drawn)


@contextmanager
def progress(what: str) -> Iterator[Update]:
    """Show a bar with the time left on stderr; yields what moves it. Silent where stderr is no terminal."""
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
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None, detail="")

        def update(done: int, total: int | None, detail: str = "") -> None:
            bar.update(task, completed=done, total=total, detail=detail)

        yield update


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"
    return str(value)
