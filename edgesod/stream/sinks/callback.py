"""A sink that hands every result to a function: what a robot's own program reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from edgesod.stream.base import Sink
from edgesod.types import Frame, Result


class CallbackSink(Sink):
    """Calls a function for every frame, in the sink thread; what it raises ends the run and reaches the caller.

    Args:
        function: Given the frame and what the network made of it. It may keep both.
        name: Printable.
    """

    wants_picture = False

    def __init__(self, function: Callable[[Frame, Result | None], object], *, name: str = "callback") -> None:
        self.name = name
        self._function = function

    def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
        """See :meth:`Sink.write`."""
        self._function(frame, result)
