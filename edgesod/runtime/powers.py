"""What a session may offer beyond :meth:`~edgesod.runtime.Session.run`; ask with ``isinstance``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from edgesod.runtime.session import Arrays
from edgesod.types import StageTimes


class PendingRun(Protocol):
    """A run that is under way."""

    def wait(self) -> Arrays:
        """Wait for it and return its outputs where they lie: they are the session's, and last until its next run."""


@runtime_checkable
class StagesInputs(Protocol):
    """A session whose input memory can be written to directly, which saves a copy a frame."""

    @property
    def staging(self) -> Mapping[str, NDArray[Any]]:
        """The memory that inputs are sent from, by name; give these very arrays to ``run``. Lasts until it is closed."""


@runtime_checkable
class RunsAsync(Protocol):
    """A session that can leave the caller to other work while the network runs, and that allocates nothing a frame."""

    def run_async(self, feeds: Mapping[str, Any]) -> PendingRun:
        """Start a run."""

    def run_into(self, feeds: Mapping[str, Any], outputs: Mapping[str, NDArray[Any]]) -> None:
        """Run once, into arrays of the caller's."""


@runtime_checkable
class TimesStages(Protocol):
    """A session that knows where its time went."""

    @property
    def times_ms(self) -> StageTimes:
        """Milliseconds of the last run by stage: ``h2d``, ``compute``, ``d2h``, taken by the GPU's own clock."""
