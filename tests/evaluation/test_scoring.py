"""Scoring a folder: matching by stem, sizes, progress, processes, and what is said when something is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgesod.errors import InputError
from edgesod.evaluation import SodScorer, accumulate_folder, accumulate_predictions
from tests.helpers.pairs import split_pairs, write_pairs

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
    assert accumulate_folder(maps, data, jobs=1).scores() == pytest.approx(scorer.scores(), abs=1e-12)


def test_a_set_and_its_mask_folder_are_the_same(folders: tuple[Path, Path]) -> None:
    maps, data = folders
    whole, masks = (accumulate_folder(maps, place, full=False, jobs=1) for place in (data, data / "masks"))
    assert whole.scores() == masks.scores()


def test_the_parts_of_a_set_score_as_the_whole(folders: tuple[Path, Path], tmp_path: Path) -> None:
    maps, data = folders
    parts = split_pairs(data, tmp_path / "parts")
    whole = accumulate_folder(maps, data, jobs=1)
    assert accumulate_folder(maps, parts, jobs=1).scores() == whole.scores()
    assert accumulate_folder(maps, [parts[0] / "masks", parts[1]], jobs=1).scores() == whole.scores()
    assert accumulate_folder(maps, parts[0], jobs=1).n == N / 2


def test_several_processes_change_nothing(folders: tuple[Path, Path]) -> None:
    maps, data = folders
    seen: list[tuple[int, int]] = []
    several = accumulate_folder(maps, data, jobs=2, on_progress=lambda *done: seen.append(done))
    assert several.scores() == accumulate_folder(maps, data, jobs=1).scores()
    assert seen == [(16, N), (N, N)]


def test_maps_without_a_mask_are_left_alone(folders: tuple[Path, Path]) -> None:
    maps, data = folders
    cv2.imwrite(str(maps / "extra.png"), np.zeros((5, 5), np.uint8))
    assert accumulate_folder(maps, data, jobs=1).n == N


def test_missing_maps_are_counted_and_named(folders: tuple[Path, Path]) -> None:
    maps, data = folders
    for name in ("004.png", "007.png"):
        (maps / name).unlink()
    with pytest.raises(InputError, match=rf"2 of {N} masks have no map .*'004'"):
        accumulate_folder(maps, data)


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_a_map_that_cannot_be_decoded_is_named(folders: tuple[Path, Path], content: bytes) -> None:
    maps, data = folders
    (maps / "003.png").write_bytes(content)
    with pytest.raises(InputError, match=r"003\.png cannot be decoded"):
        accumulate_folder(maps, data)


def test_folders_without_images_are_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="empty holds no image"):
        accumulate_folder(empty, folders[1])
    with pytest.raises(InputError, match="nowhere"):
        accumulate_folder(folders[0], tmp_path / "nowhere")


def test_predictions_are_scored_in_their_order_a_few_at_a_time() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((20, 20), np.uint8)
    truth[4:12, 5:15] = 255
    maps = [rng.random(truth.shape, np.float32) for _ in range(200)]
    alone = SodScorer(full=True)
    for saliency in maps:
        alone.add(saliency, truth)
    scored, ahead = [0], []

    def predictions() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for k, saliency in enumerate(maps):
            ahead.append(k - scored[-1])
            yield saliency, truth

    found = accumulate_predictions(predictions(), stretch=False, on_scored=scored.append)
    assert found.scores() == alone.scores()
    assert scored == list(range(len(maps) + 1))
    assert max(ahead) <= 2 * (os.cpu_count() or 1) + 1


def test_a_prediction_that_is_no_map_ends_the_scoring() -> None:
    truth = np.zeros((4, 4), np.uint8)
    with pytest.raises(ValueError, match="within"):
        accumulate_predictions([(np.full((4, 4), np.nan, np.float32), truth)])
