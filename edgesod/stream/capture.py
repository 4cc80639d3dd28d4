"""Read a source in a thread of its own, and take its frames in another."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from types import TracebackType

from edgesod.errors import SourceLost
from edgesod.stream.base import Source
from edgesod.stream.handover import Handover, HandoverEnded
from edgesod.stream.latencies import Latencies
from edgesod.types import Frame

_AHEAD = 2
_LOOK_S = 0.1
_JOIN_S = 2.0

_log = logging.getLogger("edgesod.stream")


class Capture:
    """Iterate over a source's frames while a thread reads ahead.

    A live source keeps only the newest frame, so what comes is never older than one frame's time; others keep every
    frame, in order. Use it in a ``with`` statement; the thread closes the source when it ends.

    Args:
        source: An open source.
        stop: Ends the iteration when set.
        lost_after_s: How long a live source may deliver nothing before it counts as lost, in seconds.

    Attributes:
        latencies: How long the source took for each frame: decoding for files, mostly waiting when live.
    """

    def __init__(self, source: Source, *, stop: threading.Event | None = None, lost_after_s: float = 10.0) -> None:
        self.latencies = Latencies()
        self._source = source
        self._stop = stop
        self._lost_after_s = lost_after_s
        self._frames: Handover[Frame] = Handover(1 if source.is_live else _AHEAD, keeps_newest=source.is_live)
        self._thread = threading.Thread(target=self._read, name="edgesod-capture", daemon=True)

    @property
    def num_dropped(self) -> int:
        """Frames of a live source that were overtaken by a newer one before anybody took them."""
        return self._frames.num_dropped

    def __enter__(self) -> Capture:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.cancel()
        self._thread.join(_JOIN_S)
        if self._thread.is_alive():
            _log.warning("%s does not come back from a read; left behind, it closes if it ever does", self._source.name)

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the source ends, ``stop`` is set or :meth:`cancel` is called.

        Raises:
            SourceLost: A live source delivered nothing for ``lost_after_s``.
            Exception: Whatever the source raised, after every frame before it.
        """
        waited_since_s = time.perf_counter()
        while not (self._stop and self._stop.is_set()):
            try:
                frame = self._frames.take(_LOOK_S)
            except HandoverEnded:
                return
            except TimeoutError:
                if self._source.is_live and time.perf_counter() - waited_since_s > self._lost_after_s:
                    message = f"{self._source.name} delivered nothing for {self._lost_after_s:g} s"
                    raise SourceLost(message, hint="check its cable or network, then start again") from None
                continue
            yield frame
            waited_since_s = time.perf_counter()

    def cancel(self) -> None:
        """End the iteration and the thread; may be called from any thread, and twice."""
        self._frames.close()

    def _read(self) -> None:
        error: BaseException | None = None
        try:
            with self._source:
                begun_s = time.perf_counter()
                for frame in self._source:
                    self.latencies.add((time.perf_counter() - begun_s) * 1e3)
                    if not self._frames.give(frame):
                        break
                    begun_s = time.perf_counter()
        except BaseException as caught:
            error = caught
        self._frames.finish(error)
