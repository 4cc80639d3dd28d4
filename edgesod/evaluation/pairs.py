"""Images from files, and pairs of image and mask by stem, from folders and from tar files read in place.

A set is a folder or a tar that holds, at any depth, ``images/`` and ``masks/`` (or the names the well-known sets use) with
files of the same stem.
"""

from __future__ import annotations

import logging
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from edgesod.errors import InputError
from edgesod.processing.pictures import decode_grey, decode_picture

IMAGE_DIRS = ("images", "image", "imgs", "img", "DUTS-TR-Image", "DUTS-TE-Image")
MASK_DIRS = ("masks", "mask", "gt", "GT", "ground_truth_mask", "DUTS-TR-Mask", "DUTS-TE-Mask")

# best first: some sets keep photographs as JPEG and masks as PNG of the same stem in one folder
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
_MASK_SUFFIXES = (".png", ".bmp", ".jpg", ".jpeg")

_log = logging.getLogger("edgesod.evaluation")


@dataclass(frozen=True)
class Place:
    """Where the bytes of an image file are: a whole file, or a slice of a tar."""

    path: Path
    name: str
    offset: int = 0
    length: int = -1

    def __str__(self) -> str:
        return str(self.path) if self.length < 0 else f"{self.path}:{self.name}"

    def read(self) -> bytes:
        """Return the bytes.

        Raises:
            InputError: They cannot be read.
        """
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                return file.read(self.length)
        except OSError as error:
            raise InputError(f"cannot read {self}: {error.strerror or error}") from error

    def read_colour(self) -> NDArray[np.uint8]:
        """Decode to uint8 BGR ``(H, W, 3)``; raises InputError where that fails."""
        return decode_picture(self.read(), str(self))

    def read_grey(self) -> NDArray[np.uint8]:
        """Decode to uint8 ``(H, W)``; raises InputError where that fails."""
        return decode_grey(self.read(), str(self))


class EvaluationSet:
    """Image–mask pairs by stem, from any number of folders and tars.

    Iterating yields ``(stem, image, mask)`` in the order of :attr:`stems`, one pair in memory at a time.

    Args:
        places: Folders or uncompressed tar files.

    Attributes:
        stems: All stems that have both an image and a mask, sorted. A warning is logged where others were left out.

    Raises:
        InputError: A place is neither a folder nor a readable tar, two files stand for one stem, or no pair was found.
    """

    def __init__(self, *places: str | Path) -> None:
        self._images: dict[str, Place] = {}
        self._masks: dict[str, Place] = {}
        for place in places:
            files = _files_of(Path(place))
            _add(self._images, _by_stem(_within(files, IMAGE_DIRS), _IMAGE_SUFFIXES))
            _add(self._masks, _by_stem(_within(files, MASK_DIRS), _MASK_SUFFIXES))
        self.stems = sorted(self._images.keys() & self._masks.keys())
        names = ", ".join(map(str, places))
        if not self.stems:
            raise InputError(
                f"no image–mask pair in {names}: {len(self._images)} images, {len(self._masks)} masks",
                hint="a set is a folder with images/ and masks/ holding files of the same stem, or a tar of one",
            )
        if alone := len(self._images.keys() ^ self._masks.keys()):
            _log.warning("%s: %d of %d stems lack an image or a mask and are left out", names, alone, alone + len(self.stems))

    def __len__(self) -> int:
        return len(self.stems)

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]:
        for stem in self.stems:
            yield (stem, *self.read(stem))

    def read(self, stem: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the image, uint8 BGR ``(H, W, 3)``, and its mask, uint8 ``(H, W)``, soft edges kept.

        Raises:
            InputError: One of the two cannot be read, or they differ in size.
        """
        image, mask = self._images[stem].read_colour(), self._masks[stem].read_grey()
        if image.shape[:2] != mask.shape:
            raise InputError(f"{stem}: image is {image.shape[:2]} and mask {mask.shape} (height, width)")
        return image, mask


def find_masks(place: str | Path) -> dict[str, Place]:
    """Return masks or maps by stem: the files right in a folder, else those in the mask folders of a set.

    Raises:
        InputError: There is none, or ``place`` is neither a folder nor a readable tar.
    """
    path = Path(place)
    files = _files_of(path)
    direct = [file for file in files if file.path.parent == path]
    found = _by_stem(direct, _MASK_SUFFIXES) or _by_stem(_within(files, MASK_DIRS), _MASK_SUFFIXES)
    if not found:
        raise InputError(f"{place} holds no image file", hint="give a folder of PNG files, or a set with a masks/ folder")
    return found


def _by_stem(files: Iterable[Place], suffixes: tuple[str, ...]) -> dict[str, Place]:
    """Return the files by stem, of several beside each other the one whose suffix comes first in ``suffixes``.

    Raises:
        InputError: One stem is in two folders.
    """
    found: dict[str, Place] = {}
    for file in files:
        name = PurePosixPath(file.name)
        if name.suffix.lower() not in suffixes:
            continue
        other = found.get(name.stem)
        if other is None:
            found[name.stem] = file
            continue
        other_name = PurePosixPath(other.name)
        if name.parent != other_name.parent:
            raise InputError(f"two files stand for {name.stem!r}: {other} and {file}", hint="give one set at a time")
        if suffixes.index(name.suffix.lower()) < suffixes.index(other_name.suffix.lower()):
            found[name.stem] = file
    return found


def _add(found: dict[str, Place], more: dict[str, Place]) -> None:
    if both := found.keys() & more.keys():
        stem = min(both)
        raise InputError(f"{len(both)} stems are in two places, such as {found[stem]} and {more[stem]}")
    found.update(more)


def _within(files: Iterable[Place], folders: tuple[str, ...]) -> list[Place]:
    return [file for file in files if PurePosixPath(file.name).parent.name in folders]


def _files_of(place: Path) -> list[Place]:
    if place.is_dir():
        files = [Place(path, path.as_posix()) for path in _walk(place)]
    elif place.is_file():
        files = _members_of(place)
    else:
        raise InputError(f"there is no folder or tar file at {place}", hint="give a folder that holds images/ and masks/")
    return sorted((file for file in files if not PurePosixPath(file.name).name.startswith(".")), key=lambda file: file.name)


def _walk(root: Path) -> Iterator[Path]:
    # links are followed, since images/ is often one, but no folder is entered twice
    entered: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in entered:
            subfolders.clear()
            continue
        entered.add(real)
        yield from (Path(folder) / name for name in names)


def _members_of(path: Path) -> list[Place]:
    try:
        with tarfile.open(path, "r:") as tar:
            return [Place(path, member.name, member.offset_data, member.size) for member in tar if member.isfile()]
    except (OSError, tarfile.TarError) as error:
        raise InputError(
            f"{path} cannot be read as an uncompressed tar: {error}", hint="unpack it, or pack it again without compression"
        ) from error
