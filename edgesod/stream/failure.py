"""What went wrong first: several threads may fail at once, and one error is raised."""

from __future__ import annotations

import logging
import threading

_log = logging.getLogger("edgesod.stream")


class Failure:
    """The first error of a run; the others are logged.

    Attributes:
        error: ``None`` while nothing has gone wrong.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._lock = threading.Lock()

    def note(self, error: BaseException) -> None:
        """Take an error, from any thread."""
        with self._lock:
            if self.error is None:
                self.error = error
                return
        _log.warning("besides %s: %s", type(self.error).__name__, error)
