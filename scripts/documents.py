"""What scripts share: how they begin and end, numbers on the command line, telling how far they are, writing tables into a document."""

from __future__ import annotations

import shlex
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import edgesod
from edgesod.errors import EdgesodError, InputError
from edgesod.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]


def say(text: str) -> None:
    """Tell the person at the keyboard."""
    print(text, file=sys.stderr, flush=True)


def at_least_one(text: str) -> int:
    """Return a whole number from 1 on, as the ``type`` of an option."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"a whole number from 1 on is wanted, and {text!r} was given")
    return int(text)


def replace_between(path: Path, begin: str, end: str, lines: Sequence[str]) -> None:
    """Put lines between two marks of a document, which is made where there is none.

    Raises:
        InputError: As :func:`around`.
    """
    before, after = around(path, begin, end)
    body = "\n".join(lines)
    write_atomically(path, f"{before}{begin}\n\n{body}\n\n{end}{after}".encode())
    say(f"wrote {path}")


def around(path: Path, begin: str, end: str) -> tuple[str, str]:
    """Return what stands before and behind two marks of a document; a script asks before it measures whether there is a place.

    Raises:
        InputError: It lacks one of the marks: what stands behind them would be lost.
    """
    text = path.read_text(encoding="utf-8") if path.is_file() else f"{begin}\n{end}\n"
    before, has_begin, rest = text.partition(begin)
    _, has_end, after = rest.partition(end)
    if not (has_begin and has_end):
        raise InputError(
            f"{path} has no place for the table", hint=f"put {begin} and {end} on lines of their own, one after the other"
        )
    return before, after


def warn_of_another_package() -> None:
    """Say so where ``edgesod`` is not this checkout's: its shipped weights, tables and recipes may be others than those here."""
    package = Path(edgesod.__file__).resolve().parent
    if package != ROOT / "edgesod":
        say(
            f"warning: this script is of the checkout {ROOT}, but runs the edgesod installed in {package}, with the weights there"
            f"\n  try: pip install -e {shlex.quote(f'{ROOT}[train]')}"
        )


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a script and end with what it returns; with an error's words, hint and exit code, or 130 after Ctrl-C, as ``edgesod`` does.

    A package that is not this checkout's is warned of first.
    """
    warn_of_another_package()
    try:
        code = main()
    except EdgesodError as error:
        say(f"error: {error}" + (f"\n  try: {error.hint}" if error.hint else ""))
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
