"""Where image–mask pairs come from: folders, and tar files read in place.

A source is anything with ``stems`` and ``read(stem)``. Folders hold ``images/`` and ``masks/`` (or the names the well-known
sets use); a tar holds ``<set>/images/<stem>.jpg`` and ``<set>/masks/<stem>.png`` at any depth.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.errors import InputError

IMAGE_DIRS = ("images", "image", "imgs", "img", "DUTS-TR-Image", "DUTS-TE-Image")
MASK_DIRS = ("masks", "mask", "gt", "GT", "ground_truth_mask", "DUTS-TR-Mask", "DUTS-TE-Mask")
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
_MASK_SUFFIXES = (".png", ".bmp", ".jpg")


@dataclass(frozen=True)
class _Place:
    """Bytes on disk: a whole file, or a slice of a tar."""

    path: Path
    offset: int = 0
    length: int | None = None

    def read(self) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read() if self.length is None else file.read(self.length)


class PairSource:
    """Image–mask pairs by stem, from any number of folders and tars.

    Args:
        places: Folders or ``.tar`` files; a stem that two of them hold is an error.

    Attributes:
        stems: All stems that have both an image and a mask, sorted.
    """

    def __init__(self, places: Sequence[str | os.PathLike[str]]) -> None:
        self._images: dict[str, _Place] = {}
        self._masks: dict[str, _Place] = {}
        for place in places:
            path = Path(place)
            if path.is_dir():
                images, masks = _index_folder(path)
            elif tarfile.is_tarfile(path) if path.is_file() else False:
                images, masks = _index_tar(path)
            else:
                raise InputError(f"{path} is neither a folder nor a tar file", hint="give a folder that holds images/ and masks/")
            if both := self._images.keys() & images.keys():
                raise InputError(f"{path} holds {len(both)} stems that another source holds too, such as {sorted(both)[0]!r}")
            self._images |= images
            self._masks |= masks
        self.stems = sorted(self._images.keys() & self._masks.keys())
        if not self.stems:
            raise InputError(
                f"no image–mask pair in {', '.join(map(str, places))}",
                hint="a set is a folder with images/ and masks/ holding files of the same stem, or a tar of one",
            )

    def read(self, stem: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the image, uint8 RGB ``(H, W, 3)``, and its mask, uint8 ``(H, W)``, soft edges kept."""
        image = _decode(self._images[stem], cv2.IMREAD_COLOR)
        mask = _decode(self._masks[stem], cv2.IMREAD_GRAYSCALE)
        if image.shape[:2] != mask.shape:
            raise InputError(f"{stem}: image is {image.shape[:2]} and mask {mask.shape} (height, width)")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), mask


def hold_out(stems: Sequence[str], every: int = 20) -> tuple[list[str], list[str]]:
    """Split stems into those to train on and the hold-out, every 20th in sorted order."""
    ordered = sorted(stems)
    held = set(ordered[::every])
    return [stem for stem in ordered if stem not in held], ordered[::every]


def _decode(place: _Place, flags: int) -> NDArray[np.uint8]:
    pixels = cv2.imdecode(np.frombuffer(place.read(), np.uint8), flags)
    if pixels is None:
        raise InputError(f"cannot decode {place.path} (offset {place.offset}) as an image")
    return pixels


def _index_folder(root: Path) -> tuple[dict[str, _Place], dict[str, _Place]]:
    images: dict[str, _Place] = {}
    masks: dict[str, _Place] = {}
    for folder in sorted(p for p in root.rglob("*") if p.is_dir()):
        for names, suffixes, into in ((IMAGE_DIRS, _IMAGE_SUFFIXES, images), (MASK_DIRS, _MASK_SUFFIXES, masks)):
            if folder.name in names:
                into.update({p.stem: _Place(p) for p in sorted(folder.iterdir()) if p.suffix.lower() in suffixes})
    return images, masks


def _index_tar(path: Path) -> tuple[dict[str, _Place], dict[str, _Place]]:
    images: dict[str, _Place] = {}
    masks: dict[str, _Place] = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            name = PurePosixPath(member.name)
            place = _Place(path, member.offset_data, member.size)
            if member.isfile() and name.parent.name in IMAGE_DIRS:
                images[name.stem] = place
            elif member.isfile() and name.parent.name in MASK_DIRS:
                masks[name.stem] = place
    return images, masks
