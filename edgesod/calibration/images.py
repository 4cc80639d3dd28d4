"""The images of a calibration set, as the network's input tensors."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgesod.errors import InputError
from edgesod.evaluation.pairs import MASK_DIRS, Place, evenly_spread, walk
from edgesod.processing.pictures import IMAGE_SUFFIXES, read_picture
from edgesod.processing.preprocess import preprocess
from edgesod.recipe import Recipe

log = logging.getLogger("edgesod.calibration")

_PHOTOGRAPHS = (".jpg", ".jpeg")


class CalibrationImages:
    """Images of a folder at any depth, sorted, evenly thinned out to a limit; the masks of a set are left out.

    Iterating yields ``(name, tensor)``: the path within the folder and float32 ``(1, 3, H, W)`` as the recipe preprocesses
    it. What cannot be decoded is skipped with a warning, once, and counted.

    Args:
        folder: Where the images are.
        recipe: Gives size and preprocessing.
        limit: Largest number of images.

    Attributes:
        folder: As given.
        files: What is tried.
        unreadable: What could not be decoded so far.

    Raises:
        InputError: There is no such folder or no image in it; while iterating, none of them can be decoded.
    """

    def __init__(self, folder: str | Path, recipe: Recipe, limit: int = 128) -> None:
        self.folder = Path(folder)
        self._recipe = recipe
        if not self.folder.is_dir():
            what = "a file, not a folder of images" if self.folder.is_file() else "not there: a folder of images was asked for"
            raise InputError(f"{self.folder} is {what}", hint="unpack a tar first" if self.folder.suffix == ".tar" else "")
        images = [file.path for file in walk(self.folder) if _is_image(file)]
        photographs = {path.with_suffix("") for path in images if path.suffix.lower() in _PHOTOGRAPHS}
        # beside a JPEG of its stem a PNG is the mask of it, as in the download of MSRA-10K
        found = sorted(
            (path for path in images if path.suffix.lower() in _PHOTOGRAPHS or path.with_suffix("") not in photographs),
            key=Path.as_posix,
        )
        if not found:
            raise InputError(
                f"there is no image in {self.folder}",
                hint=f"calibrate on 32 or more images like the ones it will see ({', '.join(sorted(IMAGE_SUFFIXES))})",
            )
        self.files = evenly_spread(found, limit)
        self.unreadable: set[Path] = set()

    def __len__(self) -> int:
        return len(self.files)

    @property
    def num_read(self) -> int:
        """How many images were not found unreadable."""
        return len(self.files) - len(self.unreadable)

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        for path in self.files:
            if path in self.unreadable:
                continue
            name = path.relative_to(self.folder).as_posix()
            try:
                image = read_picture(path)
            except InputError as error:
                log.warning("left out of calibration: %s", error)
                self.unreadable.add(path)
                continue
            yield name, preprocess(image, self._recipe)
        if not self.num_read:
            raise InputError(f"none of the {len(self.files)} images tried in {self.folder} can be decoded")


def _is_image(file: Place) -> bool:
    path, folders = file.path, file.folder.lower().split("/")  # all of them: PASCAL-S has its masks in masks/pascal/
    is_hidden = path.name.startswith(".")  # macOS leaves a "._cat.jpg" beside each file it copies
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden and MASK_DIRS.isdisjoint(folders) and path.is_file()
