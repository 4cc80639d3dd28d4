"""The sheet of clips holds eight frames of each, as ``edgesod run --contact-sheet`` would pick them."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgesod.stream.tour import write_tour
from tests.helpers.engines import make_engine


def test_each_clip_has_its_eight_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    import clip_sheet

    clips = [tmp_path / "first.mp4", tmp_path / "second.mp4"]
    for clip in clips:
        write_tour(clip, seconds=0.5, size_wh=(160, 120))
    engine, out = make_engine(tmp_path / "engine"), tmp_path / "sheet.png"
    monkeypatch.setattr(sys, "argv", ["clip_sheet.py", *map(str, clips), "--engine", str(engine), "--out", str(out)])
    clip_sheet.main()
    sheet = cv2.imread(str(out))
    gap, text = 4, 22
    height = (sheet.shape[0] - gap) // 2
    one, other = (sheet[gap + k * height : (k + 1) * height - text] for k in range(2))
    assert np.array_equal(one, other)  # the same clip twice, so but for the names under them
    cells = [one[y : y + 240, x : x + 320] for y in (4, 248) for x in (8, 332, 656, 980)]
    assert len({cell.tobytes() for cell in cells}) == 8
    assert all(cell.std() > 10 for cell in cells)
