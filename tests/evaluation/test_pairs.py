"""Sets from folders and tars give the same pairs, and say what is wrong with the others."""

from __future__ import annotations

import logging
import pickle
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgesod.errors import InputError
from edgesod.evaluation.pairs import EvaluationSet, find_masks
from tests.helpers.pairs import write_pairs


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "set", 3)


def _pack(data: Path, tar_path: Path, mode: str = "w") -> Path:
    with tarfile.open(tar_path, mode) as tar:  # type: ignore[call-overload]
        tar.add(data, "sod")
    return tar_path


def test_a_folder_gives_bgr_images_and_masks_by_stem(data: Path) -> None:
    pairs = EvaluationSet(data)
    assert pairs.stems == ["000", "001", "002"]
    assert len(pairs) == 3
    stem, image, mask = next(iter(pairs))
    np.testing.assert_array_equal(image, cv2.imread(str(data / "images" / f"{stem}.jpg")))
    np.testing.assert_array_equal(mask, cv2.imread(str(data / "masks" / f"{stem}.png"), cv2.IMREAD_GRAYSCALE))


def test_where_there_is_no_pair_what_is_there_is_named(data: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="0 images, 0 masks among no files at all"):
        EvaluationSet(tmp_path / "none")
    for path in (data / "masks").iterdir():
        path.rename(path.with_stem(f"{path.stem}_mask"))
    with pytest.raises(InputError, match="3 images such as '000', 3 masks such as '000_mask'"):
        EvaluationSet(data)
    (data / "images").rename(data / "photos")
    with pytest.raises(InputError, match=r"0 images, 3 masks among 3 set/masks/\*\.png, 3 set/photos/\*\.jpg"):
        EvaluationSet(data)


def test_a_tar_gives_what_its_folder_gives(data: Path, tmp_path: Path) -> None:
    folder, tar = EvaluationSet(data), EvaluationSet(_pack(data, tmp_path / "set.tar"))
    for ours, theirs in zip(folder, tar, strict=True):
        assert ours[0] == theirs[0]
        np.testing.assert_array_equal(ours[1], theirs[1])
        np.testing.assert_array_equal(ours[2], theirs[2])
    assert find_masks(tmp_path / "set.tar").keys() == find_masks(data).keys() == find_masks(data / "masks").keys()


def test_several_places_make_one_set(data: Path, tmp_path: Path) -> None:
    other = write_pairs(tmp_path / "other", 2)
    for path in (*(other / "images").iterdir(), *(other / "masks").iterdir()):
        path.rename(path.with_stem("b" + path.stem))
    assert EvaluationSet(data, other).stems == ["000", "001", "002", "b000", "b001"]
    with pytest.raises(InputError, match=r"two files stand for one stem: .*000.jpg and .*000.jpg, and 5 more such"):
        EvaluationSet(data, data)


def test_a_place_with_nothing_of_the_set_is_refused(data: Path, tmp_path: Path) -> None:
    for path in (data / "images", data / "masks"):
        path.rename(tmp_path / path.name)
    assert EvaluationSet(tmp_path / "images", tmp_path / "masks").stems == ["000", "001", "002"], (
        "a half of each pair is a part"
    )
    (tmp_path / "photos").mkdir()
    (tmp_path / "images" / "000.jpg").rename(tmp_path / "photos" / "000.jpg")
    for read in (EvaluationSet, find_masks):
        with pytest.raises(InputError, match=r"nothing of the set in .*photos: 0 images, 0 masks among 1 photos/\*.jpg"):
            read(tmp_path / "images", tmp_path / "masks", tmp_path / "photos")


@pytest.mark.parametrize(("images", "masks"), [("DUTS-TE-Image", "DUTS-TE-Mask"), ("imgs", "gt")])
def test_usual_names_links_and_depths_are_found(data: Path, tmp_path: Path, images: str, masks: str) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (deep / images).symlink_to(data / "images")
    (deep / masks).symlink_to(data / "masks")
    (deep / "round").symlink_to(tmp_path / "a")
    assert len(EvaluationSet(tmp_path / "a")) == 3


def test_jpeg_photographs_and_png_masks_may_share_a_folder(data: Path, tmp_path: Path) -> None:
    shared = tmp_path / "both"
    (data / "images").rename(shared)
    for path in (data / "masks").iterdir():
        path.rename(shared / path.name)
    assert {place.path.suffix for place in find_masks(shared).values()} == {".png"}


def test_hidden_and_lonely_files_are_left_out(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    (data / "images" / "._000.jpg").write_bytes(b"resource fork")
    (data / "masks" / "001.png").unlink()
    with caplog.at_level(logging.WARNING, "edgesod.evaluation"):
        assert EvaluationSet(data).stems == ["000", "002"]
    assert "1 of 3 stems lack an image or a mask" in caplog.text


def test_two_files_of_one_stem_are_refused(data: Path) -> None:
    (data / "more" / "images").mkdir(parents=True)
    (data / "images" / "000.jpg").rename(data / "more" / "images" / "001.jpg")
    with pytest.raises(InputError, match=r"two files stand for one stem: .*001.jpg and .*more.*001.jpg"):
        EvaluationSet(data)


def test_a_set_travels_to_other_processes(data: Path) -> None:
    pairs = pickle.loads(pickle.dumps(EvaluationSet(data)))
    assert pairs.read("001")[0].shape == (48, 48, 3)


def test_what_is_no_set_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no folder or tar file at .*nowhere"):
        EvaluationSet(tmp_path / "nowhere")
    with pytest.raises(InputError, match="uncompressed tar"):
        EvaluationSet(_pack(data, tmp_path / "set.tar.gz", "w:gz"))
    with pytest.raises(InputError, match="3 images, 0 masks"):
        EvaluationSet(data / "images")
    cut = _pack(data, tmp_path / "cut.tar")
    cut.write_bytes(cut.read_bytes()[:700])
    with pytest.raises(InputError):
        EvaluationSet(cut)


def test_files_that_are_no_pair_are_named(data: Path) -> None:
    pairs = EvaluationSet(data)
    (data / "images" / "000.jpg").write_bytes(b"no picture")
    cv2.imwrite(str(data / "masks" / "001.png"), np.zeros((5, 6), np.uint8))
    (data / "images" / "002.jpg").unlink()
    for stem, message in (("000", r"000\.jpg cannot be decoded"), ("001", r"001: image is \(48, 48\)"), ("002", "cannot read")):
        with pytest.raises(InputError, match=message):
            pairs.read(stem)
