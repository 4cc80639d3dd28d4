"""Where the subject is, a line of JSON for each frame: for programs that need no pictures."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgesod.errors import OutputError
from edgesod.files import Replacement
from edgesod.stream.base import Sink
from edgesod.types import Frame, Result


class SubjectsSink(Sink):
    """A file of JSON lines (``.jsonl``), one object for each frame.

    ``source`` (which of several), ``index`` and ``name`` (of a picture's file, else the source's) of the frame, ``time_s`` in its source,
    ``unix_s`` when it was complete, by the machine's clock; ``size``, width and height in pixels; ``box``, x, y, width and height
    of the largest subject, and ``centroid``, x and y, in pixels of the frame, both null without one.

    Of a live source each line is in its place at once, so that others can follow it; of a file all are moved there by
    :meth:`close`.

    Args:
        path: The file; folders above it are made.
        is_live: Whether the frames do not come again.

    Raises:
        OutputError: The place cannot be written.
    """

    wants_picture = False

    def __init__(self, path: Path, *, is_live: bool = False) -> None:
        self.name = str(path)
        self._replacement = None if is_live else Replacement(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            where = self._replacement.path if self._replacement else path
            # a name that is no UTF-8 becomes JSON's own escapes, from which it can be had back
            self._file = open(where, "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115  (kept open)
        except OSError as error:
            raise self._failure(error) from error

    def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
        """See :meth:`Sink.write`."""
        if result is None:
            raise OutputError(f"{self.name} takes subjects, and there is no network here")
        height, width = frame.image.shape[:2]
        line = {
            "source": frame.source,
            "index": frame.index,
            "name": frame.name,
            "time_s": round(frame.time_s, 6),
            "unix_s": round(time.time() - (time.perf_counter() - frame.captured_at_s), 6),
            "size": [width, height],
            "box": result.box,
            "centroid": None if result.centroid is None else [round(v, 2) for v in result.centroid],
        }
        try:
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            self.abort()
            raise self._failure(error) from error

    def close(self) -> None:
        """See :meth:`Sink.close`."""
        try:
            self._file.close()
        except OSError as error:
            self.abort()
            raise self._failure(error) from error
        if self._replacement:
            self._replacement.keep()

    def abort(self) -> None:
        """See :meth:`Sink.abort`; what is known of a live source stays."""
        with suppress(OSError):  # no room for the last line: known already
            self._file.close()
        if self._replacement:
            self._replacement.discard()

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write {self.name}: {error.strerror or error}", hint="make room, or choose another place")
