"""Images from files, and pairs of image and mask by stem, from folders and from tar files read in place.

A set is a folder or a tar that holds, at any depth, ``images/`` and ``masks/`` with files of the same stem, or is laid out as
one of the well-known sets is (:mod:`edgesod.evaluation.datasets`).
"""

from __future__ import annotations

import logging
import os
import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, groupby
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgesod.errors import InputError
from edgesod.evaluation.datasets import LAYOUTS, OWN, Half, Layout, mask_folders
from edgesod.processing.pictures import decode_grey, decode_picture

MASK_DIRS = mask_folders()

Places = str | Path | Sequence[str | Path]
"""A folder or tar, or several that hold the parts of one set."""

T = TypeVar("T")

_log = logging.getLogger("edgesod.evaluation")


@dataclass(frozen=True)
class Place:
    """Where the bytes of an image file are: a whole file, or a slice of a tar.

    Attributes:
        path: Of the file, or of the tar.
        name: Within what was given: from that folder's own name on, or as the tar has it.
    """

    path: Path
    name: str
    offset: int = 0
    length: int = -1

    @property
    def num_bytes(self) -> int:
        """Size of the file; 0 where it is gone."""
        if self.length >= 0:
            return self.length
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def folder(self) -> str:
        """Where it is within what was given, that folder's or tar's own name before it."""
        folder = posixpath.dirname(self.name)
        return folder if self.length < 0 else posixpath.join(self.path.stem, folder)

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


def places_of(given: Places) -> list[Path]:
    """Return the folders and tars that were given, one or several."""
    return [Path(place) for place in ((given,) if isinstance(given, str | Path) else given)]


def name_of(places: Places) -> str:
    """Return what to call a set: the names of its folders and tars, without ``.tar``."""
    return ", ".join(place.resolve().name.removesuffix(".tar") for place in places_of(places))


def evenly_spread(items: Sequence[T], count: int | None) -> list[T]:
    """Return so many items, evenly spread; all where there are no more or no count is given."""
    count = min(count or len(items), len(items))
    return [items[k * len(items) // count] for k in range(count)]


def hold_out(stems: Sequence[str], every: int = 20) -> tuple[list[str], list[str]]:
    """Split the stems of a training set into those to train on and the hold-out, every 20th in sorted order.

    The one rule of training, scoring and shipping: what it holds out was never trained on, if all parts of the set are given.
    """
    ordered = sorted(stems)
    held = set(ordered[::every])
    return [stem for stem in ordered if stem not in held], ordered[::every]


class EvaluationSet:
    """Image–mask pairs by stem, from any number of folders and tars.

    Iterating yields ``(stem, image, mask)`` in the order of :attr:`stems`, one pair in memory at a time.

    Args:
        places: Folders or uncompressed tar files.

    Attributes:
        stems: All stems that have both an image and a mask, sorted. A warning is logged where others were left out.
        images, masks: The file of each stem.
        orphans: Images without a mask and masks without an image, sorted.

    Raises:
        InputError: A place is neither a folder nor a readable tar, two files stand for one stem, no pair was found, or one
            of several places has nothing of the set.
    """

    def __init__(self, *places: str | Path) -> None:
        parts = [files_of(Path(place)) for place in places]
        files = [file for part in parts for file in part]
        found = _find(files)
        _refuse_clashes(found)
        self.images = {stem: file for part in found for stem, file in part.images.items()}
        self.masks = {stem: file for part in found for stem, file in part.masks.items()}
        self.stems = sorted(self.images.keys() & self.masks.keys())
        names = ", ".join(map(str, places))
        if not self.stems:
            raise InputError(
                f"no image–mask pair in {names}: {_seen(files, self.images, self.masks)}",
                hint="a set is a folder with images/ (JPEG, PNG, BMP) and masks/ holding files of the same stem, or a tar of one",
            )
        _refuse_idle(places, parts, found)
        lone = self.images.keys() ^ self.masks.keys()
        self.orphans = sorted((self.images.get(stem) or self.masks[stem] for stem in lone), key=str)
        if lone:
            _log.warning(
                "%s: %d of %d stems lack an image or a mask and are left out", names, len(lone), len(lone) + len(self.stems)
            )

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
        image, mask = self.images[stem].read_colour(), self.masks[stem].read_grey()
        if image.shape[:2] != mask.shape:
            raise InputError(f"{stem}: image is {image.shape[:2]} and mask {mask.shape} (height, width)")
        return image, mask


def _seen(files: list[Place], images: Iterable[str], masks: Iterable[str]) -> str:
    """Return what is there in place of pairs."""
    stems = {"images": sorted(images), "masks": sorted(masks)}
    if all(stems.values()):
        return ", ".join(f"{len(found)} {kind} such as {found[0]!r}" for kind, found in stems.items())
    counts = ", ".join(f"{len(found)} {kind}" for kind, found in stems.items())
    kinds = Counter(f"{file.folder}/*{posixpath.splitext(file.name)[1]}" for file in files).most_common(4)
    return f"{counts} among {', '.join(f'{number} {kind}' for kind, number in kinds) or 'no files at all'}"


def find_masks(*places: str | Path) -> dict[str, Place]:
    """Return masks or maps by stem: the files right in a folder, else those in the mask folders of a set.

    Several places are parts of one set; where there is no pair in them, folders of masks.

    Raises:
        InputError: There is none, two stand for one stem, a place is neither a folder nor a readable tar, or one of several
            has nothing of the set.
    """
    parts = [files_of(Path(place)) for place in places]
    files = [file for part in parts for file in part]
    found = _find(files)
    if len(places) == 1 or not any(one.paired for one in found):
        by_itself = _Found(OWN)
        for place, part in zip(map(Path, places), parts, strict=True):
            by_itself.add_masks("", [file for file in part if file.path.parent == place])
        found = [by_itself] if by_itself.masks else found
    _refuse_clashes(found)
    masks = {stem: file for part in found for stem, file in part.masks.items()}
    if not masks:
        names = ", ".join(map(str, places))
        raise InputError(f"{names} holds no image file", hint="give a folder of PNG files, or a set with a masks/ folder")
    _refuse_idle(places, parts, found)
    return masks


@dataclass
class _Found:
    """What one layout makes of some files: images and masks by stem, and pairs of files that stand for the same one."""

    layout: Layout
    images: dict[str, Place] = field(default_factory=dict)
    masks: dict[str, Place] = field(default_factory=dict)
    clashes: list[tuple[Place, Place]] = field(default_factory=list)

    @property
    def paired(self) -> set[Place]:
        """The files that have a partner."""
        return {file for stem in self.images.keys() & self.masks.keys() for file in (self.images[stem], self.masks[stem])}

    def leave_lone(self, taken: set[Place]) -> None:
        """Leave to another layout the files without a partner that it has taken."""
        both = self.images.keys() & self.masks.keys()
        for files in (self.images, self.masks):
            for stem in [stem for stem, file in files.items() if stem not in both and file in taken]:
                del files[stem]

    def add(self, folder: str, files: list[Place]) -> None:
        """Take what fits of the files right in one folder."""
        if (key := self.layout.images.key_of(folder)) is not None:
            self._take(self.images, self.layout.images, key, files)
        if (key := self.layout.masks.key_of(folder)) is not None:
            self.add_masks(key, files)

    def add_masks(self, key: str, files: list[Place]) -> None:
        self._take(self.masks, self.layout.masks, key, files)

    def _take(self, found: dict[str, Place], half: Half, key: str, files: list[Place]) -> None:
        here: dict[str, Place] = {}
        for suffix in half.suffixes:  # of several kinds beside each other the best
            for file in files:
                stem, own = posixpath.splitext(posixpath.basename(file.name))
                if own.lower() == suffix:
                    here.setdefault(key + stem, file)
        self.clashes += [(found[stem], here[stem]) for stem in sorted(here.keys() & found.keys())]
        found.update(here)


def _find(files: Iterable[Place]) -> list[_Found]:
    """Return what the layouts make of files: that with most pairs, and others as far as their pairs are of other files."""
    found = [_Found(layout) for layout in LAYOUTS]
    for (_, folder), group in groupby(files, key=lambda file: (os.path.dirname(file.path), file.folder)):
        beside = list(group)
        for part in found:
            part.add(folder, beside)
    found.sort(key=lambda part: (len(part.paired), len(part.images) + len(part.masks)), reverse=True)
    best, taken = found[:1], found[0].paired
    for part in found[1:]:
        paired = part.paired
        if paired and taken.isdisjoint(paired):
            best.append(part)
            taken |= paired
    for part in best:
        part.leave_lone(taken)
        taken.update(part.images.values(), part.masks.values())
    return best


def _refuse_clashes(found: list[_Found]) -> None:
    clashes = [clash for part in found for clash in part.clashes]
    for one, other in combinations(found, 2):
        for files, more in ((one.images, other.images), (one.masks, other.masks)):
            clashes += [(files[stem], more[stem]) for stem in sorted(files.keys() & more.keys())]
    if clashes:
        others = f", and {len(clashes) - 1} more such" if len(clashes) > 1 else ""
        raise InputError(
            f"two files stand for one stem: {clashes[0][0]} and {clashes[0][1]}{others}",
            hint="give one set at a time; edgesod data pack makes one of several",
        )


def _refuse_idle(places: Sequence[str | Path], parts: Sequence[list[Place]], found: Iterable[_Found]) -> None:
    """Refuse one of several places that nothing was found in: a score of the others alone would pass for the whole set's."""
    used = {file for one in found for file in (*one.images.values(), *one.masks.values())}
    for place, files in zip(places, parts, strict=True):
        if used.isdisjoint(files):
            raise InputError(
                f"there is nothing of the set in {place}: {_seen(files, (), ())}",
                hint="leave it out; or each part needs folders such as images/ and masks/",
            )


def files_of(place: Path) -> list[Place]:
    """Return every file at any depth of a folder or in a tar, folder by folder in each name's order; hidden ones are left out.

    Raises:
        InputError: It is neither a folder nor an uncompressed tar.
    """
    if place.is_dir():
        files: Iterable[Place] = _walk(place)
    elif place.is_file():
        files = _members_of(place)
    else:
        raise InputError(f"there is no folder or tar file at {place}", hint="name a folder, or an uncompressed tar of one")
    shown = (file for file in files if not posixpath.basename(file.name).startswith("."))
    return sorted(shown, key=lambda file: posixpath.split(file.name))


def _walk(root: Path) -> Iterator[Place]:
    """Yield every file at any depth of a folder; links are followed, since ``images/`` is often one, and no folder is entered twice."""
    entered: set[str] = set()
    top = root.resolve().name
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in entered:
            subfolders.clear()
            continue
        entered.add(real)
        within = posixpath.normpath(posixpath.join(top, Path(folder).relative_to(root).as_posix()))
        yield from (Place(Path(folder, name), posixpath.join(within, name)) for name in names)


def _members_of(path: Path) -> list[Place]:
    try:
        with tarfile.open(path, "r:") as tar:
            return [Place(path, member.name, member.offset_data, member.size) for member in tar if member.isfile()]
    except (OSError, tarfile.TarError) as error:
        raise InputError(
            f"{path} cannot be read as an uncompressed tar: {error}", hint="unpack it, or pack it again without compression"
        ) from error
