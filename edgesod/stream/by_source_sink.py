"""A sink for each of several sources: a video file takes one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from numpy.typing import NDArray

from edgesod.stream.base import Sink
from edgesod.types import Frame, Result


class BySourceSink(Sink):
    """Gives each picture to the sink of its source.

    Args:
        sinks: One for each source, in their order.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self.name = ", ".join(sink.name for sink in sinks)
        self.wants_picture = any(sink.wants_picture for sink in sinks)
        self._sinks = sinks

    def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
        """See :meth:`Sink.write`."""
        self._sinks[frame.source].write(image, frame, result)

    def close(self) -> None:
        """See :meth:`Sink.close`."""
        self._each("close")

    def abort(self) -> None:
        """See :meth:`Sink.abort`."""
        self._each("abort")

    def _each(self, how: str) -> None:
        with ExitStack() as stack:  # so that one that fails keeps none of the others from it
            for sink in reversed(self._sinks):
                stack.callback(getattr(sink, how))
