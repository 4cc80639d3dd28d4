"""What scripts that measure for hours share: telling how far they are, and writing their tables into a document."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from edgesod.files import write_atomically


def say(text: str) -> None:
    """Tell the person at the keyboard."""
    print(text, file=sys.stderr, flush=True)


def replace_between(path: Path, begin: str, end: str, lines: Sequence[str]) -> None:
    """Put lines between two marks of a document, which is made where there is none."""
    text = path.read_text(encoding="utf-8") if path.is_file() else f"{begin}\n{end}\n"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    body = "\n".join(lines)
    write_atomically(path, f"{before}{begin}\n\n{body}\n\n{end}{after}".encode())
    say(f"wrote {path}")
