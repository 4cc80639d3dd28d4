"""Which images a calibration reads, and what it does about those it cannot."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgesod.calibration.images import CalibrationImages
from edgesod.errors import InputError
from edgesod.processing.preprocess import preprocess
from edgesod.recipe import Recipe


def test_images_at_any_depth_come_sorted_and_preprocessed(
    photographs: Path, recipe: Recipe, inputs: list[NDArray[np.float32]]
) -> None:
    names, tensors = zip(*CalibrationImages(photographs, recipe), strict=True)
    assert names == tuple(f"{photographs.name}/{name}" for name in ("cat.png", "coffee.png", "inner/rocket.png"))
    for tensor, expected in zip(tensors, inputs, strict=True):
        assert tensor.dtype == np.float32
        np.testing.assert_array_equal(tensor, expected)


def test_a_limit_spreads_over_the_folder(tmp_path: Path, recipe: Recipe) -> None:
    for k in range(10):
        (tmp_path / f"{k}.jpg").touch()
    (tmp_path / "notes.txt").touch()
    names = [file.path.stem for file in CalibrationImages(tmp_path, recipe, limit=4).files]
    assert names == ["0", "2", "5", "7"]
    assert len(CalibrationImages(tmp_path, recipe)) == 10


def test_what_cannot_be_decoded_is_left_out_counted_and_named_once(
    photographs: Path, recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(photographs, tmp_path / "set")
    (tmp_path / "set/broken.png").write_bytes(b"\x89PNG but no more")
    images = CalibrationImages(tmp_path / "set", recipe)
    for _ in range(2):
        assert len(list(images)) == 3
    assert (images.num_read, len(images)) == (3, 4)
    assert caplog.text.count("broken.png") == 1


def test_masks_beside_their_photographs_are_left_out(tmp_path: Path, recipe: Recipe) -> None:
    for name in ("a.jpg", "a.png", "b.JPG", "b.png", "c.png"):
        (tmp_path / name).touch()
    assert [file.path.name for file in CalibrationImages(tmp_path, recipe).files] == ["a.jpg", "b.JPG", "c.png"]


def test_masks_in_folders_of_their_own_are_left_out_at_any_depth_and_links_are_followed(tmp_path: Path, recipe: Recipe) -> None:
    root = tmp_path / "datasets"
    for name in ("imgs/pascal/1.jpg", "imgs/pascal/._1.jpg", "masks/pascal/1.png", "GT/1.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/images").symlink_to(root / "imgs")
    (tmp_path / "linked/imgs").symlink_to(tmp_path / "linked")  # a link that leads round in a circle
    for folder, expected in ((root, "imgs/pascal/1.jpg"), (tmp_path / "linked", "images/pascal/1.jpg")):
        assert [file.name for file in CalibrationImages(folder, recipe).files] == [f"{folder.name}/{expected}"]


def test_a_tar_is_read_in_place_and_its_masks_are_left_out(photographs: Path, recipe: Recipe, tmp_path: Path) -> None:
    cat, coffee, rocket = (photographs / name for name in ("cat.png", "coffee.png", "inner/rocket.png"))
    parts = tmp_path / "one.tar", tmp_path / "two.tar"
    with tarfile.open(parts[0], "w") as tar:
        for picture, name in ((rocket, "imgs/b.png"), (cat, "./imgs/a.png"), (coffee, "gt/a.png"), (coffee, "imgs/._a.png")):
            tar.add(picture, f"set/{name}" if name[0] != "." else name)
    cv2.imwrite(str(tmp_path / "coffee.jpg"), cv2.imread(str(coffee)))
    with tarfile.open(parts[1], "w") as tar:  # photographs and masks in one folder
        tar.add(tmp_path / "coffee.jpg", "Imgs/c.jpg")
        tar.add(cat, "Imgs/c.png")
        tar.addfile(tarfile.TarInfo("Imgs/read me.txt"))
    images = CalibrationImages(parts, recipe)
    assert images.name == "one, two"
    expected = {"./imgs/a.png": cat, "Imgs/c.jpg": tmp_path / "coffee.jpg", "set/imgs/b.png": rocket}
    found = dict(images)
    assert list(found) == list(expected)
    for name, picture in expected.items():
        np.testing.assert_array_equal(found[name], preprocess(cv2.imread(str(picture)), recipe))
    assert [name for name, _ in CalibrationImages(parts[0], recipe, limit=1)] == ["./imgs/a.png"]
    (tmp_path / "no.tar").write_bytes(b"no tar at all")
    with pytest.raises(InputError, match=r"no.tar cannot be read as an uncompressed tar"):
        CalibrationImages([parts[0], tmp_path / "no.tar"], recipe)


@pytest.mark.parametrize("content", [None, {}, {"notes.txt": b"no image"}])
def test_a_folder_without_images_is_an_error_that_names_it(
    tmp_path: Path, recipe: Recipe, content: dict[str, bytes] | None
) -> None:
    folder = tmp_path / "pictures"
    if content is not None:
        folder.mkdir()
        for name, value in content.items():
            (folder / name).write_bytes(value)
    with pytest.raises(InputError, match="pictures"):
        CalibrationImages(folder, recipe)


def test_a_folder_of_broken_images_is_an_error(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(InputError, match="none of the 1 images"):
        list(CalibrationImages(tmp_path, recipe))
