"""The images of a calibration set, as the network's input tensors."""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgesod.errors import InputError
from edgesod.evaluation.pairs import MASK_DIRS, Place, Places, evenly_spread, files_of, name_of, places_of
from edgesod.processing.pictures import IMAGE_SUFFIXES
from edgesod.processing.preprocess import preprocess
from edgesod.recipe import Recipe

log = logging.getLogger("edgesod.calibration")

_PHOTOGRAPHS = (".jpg", ".jpeg")


class CalibrationImages:
    """Images of folders and tars at any depth, sorted, evenly thinned out to a limit; the masks of a set are left out.

    Iterating yields ``(name, tensor)``: the path from the folder's own name on, or as the tar has it, and float32
    ``(1, 3, H, W)`` as the recipe preprocesses it. What cannot be decoded is skipped with a warning, once, and counted.

    Args:
        places: Where the images are: a folder, an uncompressed tar, or several.
        recipe: Gives size and preprocessing.
        limit: Largest number of images.

    Attributes:
        name: The places' own names.
        files: What is tried.
        unreadable: What could not be decoded so far.

    Raises:
        InputError: A place is neither a folder nor a tar, or has no image in it; while iterating, none of them can be decoded.
    """

    def __init__(self, places: Places, recipe: Recipe, limit: int = 128) -> None:
        self.name = name_of(places)
        self._recipe = recipe
        found = [file for place in places_of(places) for file in _images_of(place)]
        self.files = evenly_spread(sorted(found, key=lambda file: (file.name, str(file))), limit)
        self.unreadable: set[Place] = set()

    def __len__(self) -> int:
        return len(self.files)

    @property
    def num_read(self) -> int:
        """How many images were not found unreadable."""
        return len(self.files) - len(self.unreadable)

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        for file in self.files:
            if file in self.unreadable:
                continue
            try:
                image = file.read_colour()
            except InputError as error:
                log.warning("left out of calibration: %s", error)
                self.unreadable.add(file)
                continue
            yield file.name, preprocess(image, self._recipe)
        if not self.num_read:
            raise InputError(f"none of the {len(self.files)} images tried in {self.name} can be decoded")


def _images_of(place: Path) -> list[Place]:
    images = [file for file in files_of(place) if _is_image(file)]
    if not images:
        raise InputError(
            f"there is no image in {place}",
            hint=f"calibrate on 32 or more images like the ones it will see ({', '.join(sorted(IMAGE_SUFFIXES))})",
        )
    photographs = {_stem(file) for file in images if _suffix(file) in _PHOTOGRAPHS}
    # beside a JPEG of its stem a PNG is the mask of it, as in the download of MSRA-10K
    return [file for file in images if _suffix(file) in _PHOTOGRAPHS or _stem(file) not in photographs]


def _is_image(file: Place) -> bool:
    folders = file.folder.lower().split("/")  # all of them: PASCAL-S has its masks in masks/pascal/
    return _suffix(file) in IMAGE_SUFFIXES and MASK_DIRS.isdisjoint(folders) and file.path.is_file()


def _stem(file: Place) -> str:
    return posixpath.splitext(file.name)[0]


def _suffix(file: Place) -> str:
    return posixpath.splitext(file.name)[1].lower()
