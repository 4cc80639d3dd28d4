"""First values of properties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Default:
    """A property's first value that only the fake module knows: a member of one of its enums, or a setting of the machine."""

    path: str

    def of(self, fake: Any) -> Any:
        value = fake
        for part in self.path.split("."):
            value = getattr(value, part)
        return value
