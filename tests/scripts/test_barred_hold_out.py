"""The hold-out with bars in front is the hold-out, hidden in part."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgesod.evaluation.pairs import EvaluationSet, hold_out
from tests.helpers.pairs import write_pairs


def test_every_held_out_picture_is_written_with_its_mask_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    import barred_hold_out

    write_pairs(tmp_path / "set", 41)
    monkeypatch.setattr(sys, "argv", ["barred_hold_out.py", "--data", str(tmp_path / "set"), "--out", str(tmp_path / "barred")])
    barred_hold_out.main()
    source, barred = EvaluationSet(tmp_path / "set"), EvaluationSet(tmp_path / "barred")
    assert barred.stems == hold_out(source.stems)[1]
    assert len(barred.stems) == 3
    changed = 0
    for stem, image, mask in barred:
        whole_image, whole_mask = source.read(stem)
        assert image.shape == whole_image.shape
        assert (mask <= whole_mask).all()
        cut = mask != whole_mask
        changed += bool((image != whole_image).any())
        assert not cut.any() or np.mean((cv2.absdiff(image, whole_image) > 0).any(axis=-1)[cut]) > 0.9
    assert changed
