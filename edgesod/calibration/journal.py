"""What a long measurement has found so far, in a file beside its result: one that was stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from edgesod.errors import InputError
from edgesod.files import read_json, write_atomically


class Journal:
    """Findings by name, each a few numbers, written after each one and read by the next measurement of the same thing.

    Args:
        path: Where they are kept between runs.
        subject: What is measured and how, as a digest of it. What was found about another subject is not read, and goes with the
            first finding about this one.

    Attributes:
        found: The findings so far.

    Raises:
        InputError: The file at ``path`` is not a journal.
    """

    def __init__(self, path: Path, subject: str) -> None:
        self.path = path
        self.found: dict[str, list[float]] = {}
        self._subject = subject
        if not path.is_file():
            return
        try:
            kept = read_json(path)
            found = {name: [float(value) for value in values] for name, values in kept["found"].items()}
            self.found = found if kept["subject"] == subject else {}
        except (InputError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is not what a measurement that was stopped leaves", hint=f"rm {path}") from error

    def add(self, name: str, values: Sequence[float]) -> None:
        """Record a finding.

        Raises:
            OutputError: It cannot be written.
        """
        self.found[name] = list(values)
        write_atomically(self.path, json.dumps({"subject": self._subject, "found": self.found}).encode())
