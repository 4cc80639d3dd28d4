"""A sink that keeps a few pictures spread over the run and lays them out as one: the quickest way to judge a clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.errors import UsageError
from edgesod.processing.sheet import contact_sheet, write_sheet
from edgesod.stream.base import Sink, as_bgr
from edgesod.types import Frame, Result

_CELL_WH = (320, 240)


class SheetSink(Sink):
    """Pictures evenly spread over a run, as one sheet.

    The length of a run need not be known: every picture is kept until there are four times as many as wanted, then every other
    one goes and from there on only every second is taken, and so on. Memory stays bounded, and what is left is evenly spread.

    Args:
        path: The ``.png`` to write.
        wanted: Pictures on the sheet.
        columns: Pictures in a row.
    """

    def __init__(self, path: str | Path, *, wanted: int = 8, columns: int = 4) -> None:
        self.name = str(path)
        self._path = Path(path)
        if self._path.suffix.lower() != ".png":
            raise UsageError(f"a contact sheet is a .png, not {self._path.name}", hint=f"{self._path.with_suffix('.png')}")
        self._wanted, self._columns = wanted, columns
        self._kept: list[NDArray[np.uint8]] = []
        self._stride = 1
        self._seen = 0
        self._is_done = False

    def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
        """See :meth:`Sink.write`."""
        if self._seen % self._stride == 0:
            self._kept.append(_small(image))
            if len(self._kept) >= 4 * self._wanted:
                self._kept = self._kept[::2]
                self._stride *= 2
        self._seen += 1

    def close(self) -> None:
        """Write the sheet; a run without a picture writes none."""
        if self._is_done or not self._kept:
            return
        self._is_done = True
        chosen = np.linspace(0, len(self._kept) - 1, min(self._wanted, len(self._kept))).round().astype(int)
        pictures = [self._kept[k] for k in chosen]
        rows = [pictures[k : k + self._columns] for k in range(0, len(pictures), self._columns)]
        write_sheet(contact_sheet(rows, cell_wh=_CELL_WH), self._path)

    def abort(self) -> None:
        """See :meth:`Sink.abort`."""
        self._is_done = True


def _small(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the picture no larger than a cell, as BGR."""
    scale = min(1.0, _CELL_WH[0] / image.shape[1], _CELL_WH[1] / image.shape[0])
    size_wh = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = np.asarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA), np.uint8)
    return as_bgr(small)
