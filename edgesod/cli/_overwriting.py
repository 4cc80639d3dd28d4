"""See that what a run writes is nothing that it reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgesod.errors import UsageError
from edgesod.stream.uri import is_sequence, scheme_of, sequence_regex, split_query

_FILE = "file://"


def refuse_overwriting(inputs: Sequence[str], outputs: Iterable[str]) -> None:
    """Raise where an output may replace a file that is read.

    Args:
        inputs: What is read, by the names a person types.
        outputs: What is written, each by the name it gets at last: already numbered where there are several sources.

    Raises:
        UsageError: An output is an input, or its folder or pattern may hit one of an input's pictures.
    """
    read = [(one, file) for one in inputs for file in _files_of(one)]
    for out in outputs:
        path = Path(out[len(_FILE) :] if scheme_of(out) == "file" else out)
        for source, file in read:
            if _may_hit(path, file):
                raise UsageError(f"{out} would overwrite the input {source}", hint="write to another place")


def _files_of(source: str) -> list[Path]:
    """Return the files that an input is read from; none where it is no file."""
    name = source[len(_FILE) :] if scheme_of(source) == "file" else source
    path = Path(name if os.path.exists(name) else split_query(name)[0])
    try:
        if os.path.isdir(path):
            return list(path.iterdir())
        if not os.path.exists(path) and is_sequence(path.name):
            names = sequence_regex(path.name)
            return [file for file in path.parent.iterdir() if names.fullmatch(file.name)]
    except OSError:  # opening it says what is wrong
        return []
    return [path]


def _may_hit(out: Path, file: Path) -> bool:
    if os.path.isdir(out):
        return _is_same(out, file.parent)
    if is_sequence(out.name) and _is_same(out.parent, file.parent):
        return sequence_regex(out.name).fullmatch(file.name) is not None
    return _is_same(out, file)


def _is_same(one: Path, other: Path) -> bool:
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)
