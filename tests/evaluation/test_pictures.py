"""Curves, contact sheets and the published rows."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from edgesod.errors import OutputError
from edgesod.evaluation import SodScorer
from edgesod.evaluation.curves import draw_curves, write_curves
from edgesod.evaluation.metrics import Curves
from edgesod.evaluation.published import DATASETS, compare_with_published, published_scores
from edgesod.processing.sheet import contact_sheet, write_sheet


def _curves() -> Curves:
    rng = np.random.default_rng(0)
    scorer = SodScorer()
    truth = np.zeros((20, 30), np.uint8)
    truth[5:15, 5:20] = 255
    scorer.add(np.clip(truth / 300 + rng.random(truth.shape) * 0.15, 0, 1), truth)
    return scorer.curves()


def test_curves_are_drawn(tmp_path: Path) -> None:
    draw_curves({"U²-NetP": _curves(), "other": _curves()}, tmp_path / "curves.png")
    picture = cv2.imread(str(tmp_path / "curves.png"))
    assert picture.shape == (600, 1320, 3)
    assert picture.std() > 5


def test_curves_are_written_as_a_table(tmp_path: Path) -> None:
    curves = _curves()
    write_curves({"a": curves, "b": curves}, tmp_path / "curves.csv")
    with (tmp_path / "curves.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 512
    assert (rows[0]["model"], rows[0]["threshold"], rows[-1]["threshold"]) == ("a", "255", "0")
    assert [float(row["f"]) for row in rows[:256]] == pytest.approx(curves.f.tolist(), abs=1e-6)


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        draw_curves({"a": _curves()}, tmp_path / "file" / "curves.png")


def test_published_rows_are_found_whatever_the_spelling() -> None:
    assert published_scores("U²-NetP", "SOD") == {"max_f": 0.841, "mae": 0.124}
    assert published_scores("u2netp", "duts_te") == {
        "max_f": 0.852,
        "mae": 0.054,
        "weighted_f": 0.763,
        "s_measure": 0.847,
        "relaxed_boundary_f": 0.723,
    }
    assert published_scores("BAPoolNet", "DUTS-TE") == {"max_f": 0.892, "mae": 0.035}
    assert published_scores("BAPoolNet", "SOD") == published_scores("u2netp", "own") == published_scores("own", "SOD") == {}
    assert all(published_scores("basnet", name) for name in DATASETS)


def test_own_scores_stand_beside_the_published_ones() -> None:
    found = compare_with_published("basnet", "SOD", {"n": 300, "max_f": 0.861, "mae": 0.103, "adp_f": 0.8})
    assert set(found) == {"max_f", "mae"}
    assert found["max_f"].published == 0.851
    assert found["max_f"].difference == pytest.approx(0.010)
    assert found["mae"].difference == pytest.approx(-0.010)
    assert compare_with_published("basnet", "own", {"max_f": 0.9}) == {}


def test_a_sheet_holds_every_picture_in_its_cell(tmp_path: Path) -> None:
    rocket = np.ascontiguousarray(data.rocket()[:, :, ::-1])
    saliency = np.ones((10, 10), np.float32)
    mask = np.full((20, 10), 255, np.uint8)
    sheet = contact_sheet(
        [[rocket, mask, saliency], [rocket]], ["image", "truth", "U²-NetP 320"], (60, 40), ["first", "second"]
    )
    assert sheet.shape == (22 + 2 * (40 + 22 + 4) + 4, 3 * (60 + 4) + 4, 3)
    top = 22 + 4
    middle = sheet[top + 20]
    assert (middle[4 + 64 + 30] == 255).all()  # the mask is upright: white in the middle of its cell,
    assert (middle[4 + 64 + 5] < 64).all()  # and empty beside it
    assert (middle[4 + 128 + 30] == 255).all()
    assert sheet[top : top + 40, 4:64].std() > 10
    assert sheet[:22].max() > 200  # the labels
    write_sheet(sheet, tmp_path / "sheet.png")
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "sheet.png")), sheet)


def test_a_sheet_of_frames_needs_no_labels() -> None:
    frames = [np.full((18, 32, 3), value, np.uint8) for value in (50, 100, 150)]
    sheet = contact_sheet([frames], cell_wh=(32, 18))
    assert sheet.shape == (18 + 8, 3 * 36 + 4, 3)
    assert [int(sheet[13, 4 + 36 * k + 16, 0]) for k in range(3)] == [50, 100, 150]
    with pytest.raises(ValueError, match="at least one picture"):
        contact_sheet([[]])
