"""A session without an engine: a function in its place, for tests and for programs that are written before their network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from edgesod.runtime.session import Arrays, Session, check_arrays
from edgesod.types import TensorSpec


class MemorySession(Session):
    """Run a Python function as if it were an engine.

    Args:
        function: Takes one array per input and returns one per output, both by name; the arrays it returns must be new
            ones at every call.
        inputs: Names, shapes and dtypes of what it takes.
        outputs: Names, shapes and dtypes of what it returns; checked after every call.
        delay_s: Seconds that each run takes longer, to stand in for a network's time.
    """

    def __init__(
        self,
        function: Callable[[Arrays], Arrays],
        inputs: Iterable[TensorSpec],
        outputs: Iterable[TensorSpec],
        *,
        delay_s: float = 0.0,
    ) -> None:
        super().__init__("memory", inputs, outputs)
        self._function: Callable[[Arrays], Arrays] | None = function
        self._delay_s = delay_s

    def _run(self, feeds: Arrays) -> Arrays:
        assert self._function is not None  # only a closed session has none, and a closed one does not run
        if self._delay_s:
            time.sleep(self._delay_s)
        outputs = self._function(feeds)
        check_arrays("outputs", self.outputs, outputs)
        return outputs

    def _close(self) -> None:
        self._function = None
