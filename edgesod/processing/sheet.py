"""Contact sheets: images, masks and several models' maps side by side, or the frames of a clip."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.errors import OutputError
from edgesod.files import write_atomically
from edgesod.types import SaliencyMap

_GAP = 4
_STRIP = 22  # height of a line of text
_BACKGROUND = 32
_TEXT = (230, 230, 230)
_FONT, _FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.45


def contact_sheet(
    rows: Sequence[Sequence[NDArray[np.uint8] | SaliencyMap]],
    labels: Sequence[str] = (),
    cell_wh: tuple[int, int] = (240, 180),
    row_labels: Sequence[str] = (),
) -> NDArray[np.uint8]:
    """Lay pictures out in a grid; each keeps its aspect and is centred in its cell.

    Args:
        rows: Pictures, uint8 BGR ``(H, W, 3)``, uint8 ``(H, W)`` or a saliency map, float ``(H, W)`` in [0, 1], of any
            sizes. Rows may be of different lengths.
        labels: Text over each column.
        cell_wh: Width and height of a cell in pixels.
        row_labels: Text under the first picture of each row.

    Returns:
        The sheet, uint8 BGR.
    """
    if not any(len(row) for row in rows):
        raise ValueError("a contact sheet needs at least one picture")
    width, height = cell_wh
    header, footer = (_STRIP if labels else 0), (_STRIP if row_labels else 0)
    num_columns = max(len(labels), *(len(row) for row in rows))
    step_x, step_y = width + _GAP, height + footer + _GAP
    sheet = np.full((header + len(rows) * step_y + _GAP, num_columns * step_x + _GAP, 3), _BACKGROUND, np.uint8)
    for column, label in enumerate(labels):
        _write(sheet, label, _GAP + column * step_x, 0, width)
    for i, row in enumerate(rows):
        top = header + _GAP + i * step_y
        for column, picture in enumerate(row):
            left = _GAP + column * step_x
            _place(sheet[top : top + height, left : left + width], picture)
        if i < len(row_labels):
            _write(sheet, row_labels[i], _GAP, top + height, num_columns * step_x - _GAP)
    return sheet


def write_sheet(sheet: NDArray[np.uint8], path: str | Path) -> None:
    """Write a sheet, uint8 BGR, as PNG.

    Raises:
        OutputError: It cannot be written.
    """
    is_encoded, content = cv2.imencode(".png", sheet)
    if not is_encoded:
        raise OutputError(f"{path}: a sheet of {sheet.shape[1]}×{sheet.shape[0]} pixels cannot be encoded as PNG")
    write_atomically(path, content.tobytes())


def _place(cell: NDArray[np.uint8], picture: NDArray[np.uint8] | SaliencyMap) -> None:
    scale = min(cell.shape[0] / picture.shape[0], cell.shape[1] / picture.shape[1])
    width, height = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    shrunk = cv2.resize(_as_bgr(picture), (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top, left = (cell.shape[0] - height) // 2, (cell.shape[1] - width) // 2
    cell[top : top + height, left : left + width] = shrunk


def _as_bgr(picture: NDArray[np.uint8] | SaliencyMap) -> NDArray[np.uint8]:
    pixels = picture if picture.dtype == np.uint8 else (picture * 255).astype(np.uint8)
    return np.asarray(pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR), np.uint8)


def _write(sheet: NDArray[np.uint8], text: str, left: int, top: int, width: int) -> None:
    # OpenCV's built-in font is ASCII: ² becomes 2, and what has no such form a question mark
    text = unicodedata.normalize("NFKC", text).encode("ascii", "replace").decode()
    while text and cv2.getTextSize(text, _FONT, _FONT_SCALE, 1)[0][0] > width:
        text = text[:-1]
    cv2.putText(sheet, text, (left, top + _STRIP - 7), _FONT, _FONT_SCALE, _TEXT, 1, cv2.LINE_AA)
