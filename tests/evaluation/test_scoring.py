"""Scoring a folder: matching by stem, sizes, progress, processes, and what is said when something is missing."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgesod.errors import InputError
from edgesod.evaluation import SodScorer, score_folder, score_predictions
from edgesod.evaluation.scoring import accumulate_folder
from tests.helpers.pairs import write_pairs

N = 20


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Maps of half the masks' size, and a set."""
    data = write_pairs(tmp_path / "set", N)
    maps = tmp_path / "maps"
    maps.mkdir()
    for path in (data / "masks").iterdir():
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(maps / path.name), cv2.GaussianBlur(cv2.resize(mask, (24, 24)), (0, 0), 2))
    return maps, data


def test_maps_are_brought_to_the_size_of_the_masks(folders: tuple[Path, Path]) -> None:
    maps, data = folders
    scorer = SodScorer(full=True)
    for path in sorted(maps.iterdir()):
        truth = cv2.imread(str(data / "masks" / path.name), cv2.IMREAD_GRAYSCALE)
        saliency = cv2.resize(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), (48, 48), interpolation=cv2.INTER_LINEAR)
        scorer.add(saliency, truth, stretch=True)
    assert score_folder(maps, data) == pytest.approx(scorer.scores(), abs=1e-12)


def test_a_set_and_its_mask_folder_are_the_same(folders: tuple[Path, Path]) -> None:
    maps, data = folders
    assert score_folder(maps, data, full=False) == score_folder(maps, data / "masks", full=False, jobs=1)


def test_several_processes_change_nothing(folders: tuple[Path, Path]) -> None:
    maps, data = folders
    seen: list[tuple[int, int]] = []
    assert score_folder(maps, data, jobs=2, on_progress=lambda *done: seen.append(done)) == score_folder(maps, data)
    assert seen == [(16, N), (N, N)]


def test_maps_without_a_mask_are_left_alone(folders: tuple[Path, Path]) -> None:
    maps, data = folders
    cv2.imwrite(str(maps / "extra.png"), np.zeros((5, 5), np.uint8))
    assert accumulate_folder(maps, data).n == N


def test_missing_maps_are_counted_and_named(folders: tuple[Path, Path]) -> None:
    maps, data = folders
    for name in ("004.png", "007.png"):
        (maps / name).unlink()
    with pytest.raises(InputError, match=rf"2 of {N} masks have no map .*'004'"):
        score_folder(maps, data)


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_a_map_that_cannot_be_decoded_is_named(folders: tuple[Path, Path], content: bytes) -> None:
    maps, data = folders
    (maps / "003.png").write_bytes(content)
    with pytest.raises(InputError, match=r"003\.png cannot be decoded"):
        score_folder(maps, data)


def test_folders_without_images_are_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="empty holds no image"):
        score_folder(empty, folders[1])
    with pytest.raises(InputError, match="nowhere"):
        score_folder(folders[0], tmp_path / "nowhere")


def test_predictions_are_scored_as_they_come() -> None:
    truth = np.zeros((20, 20), np.uint8)
    truth[4:12, 5:15] = 255
    scores = score_predictions((truth.astype(np.float32) / 510, truth) for _ in range(3))
    assert scores["n"] == 3
    assert scores["mae"] == 0
    assert score_predictions([(truth, truth)], full=False).keys() < scores.keys()
