"""Look a set over before training on it: what is missing, broken, twice there, or not the mask it should be."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.errors import InputError
from edgesod.evaluation.datasets import DATASETS, Dataset, dataset_of
from edgesod.evaluation.metrics import TRUTH_ABOVE
from edgesod.evaluation.pairs import EvaluationSet, Place
from edgesod.processing.pictures import decode_grey, decode_picture

from .threads import map_ahead

_HASH_SIDE = 16
_NEAR = 10
"""Bits of the 256 of two perceptual hashes that may differ. In DUTS-TR re-encoded copies differ in at most 1, and pictures that only
look alike in 27 or more."""

_MOSTLY_SOFT = 0.25


@dataclass(frozen=True)
class Count:
    """How many pairs of one set there are.

    Attributes:
        name: Of a known set, else of the folder.
        pairs: Images with a mask.
        expected: What its authors say; empty where that is not known or not judged.
    """

    name: str
    pairs: int
    expected: tuple[int, ...]

    @property
    def is_right(self) -> bool:
        """Whether it is as its authors say, where they do."""
        return not self.expected or self.pairs in self.expected


@dataclass
class Finding:
    """One kind of thing that may be amiss.

    Attributes:
        name: Short.
        about: What it means for training.
        stops: Whether one of them is enough not to train on this set.
        files: Each that was found, with what was seen.
    """

    name: str
    about: str
    stops: bool
    files: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> Literal["ok", "note", "wrong"]:
        """``wrong`` keeps from training, a ``note`` is worth knowing."""
        if not self.files:
            return "ok"
        return "wrong" if self.stops else "note"


@dataclass(frozen=True)
class CheckReport:
    """What came of a check.

    Attributes:
        counts: Pairs of each set found.
        findings: By kind, also those that nothing was found of.
        soft_masks: How many masks have values between 0 and 255.
        soft_share: Share of all mask pixels that have, in [0, 1].
        smallest, median, largest: Longest side of the images, in pixels.
    """

    counts: list[Count]
    findings: list[Finding]
    soft_masks: int
    soft_share: float
    smallest: int
    median: int
    largest: int

    @property
    def pairs(self) -> int:
        """Images with a mask."""
        return sum(count.pairs for count in self.counts)

    @property
    def is_fit(self) -> bool:
        """Whether nothing speaks against training on it."""
        return all(count.is_right for count in self.counts) and all(found.verdict != "wrong" for found in self.findings)


@dataclass(frozen=True)
class _Look:
    """What is kept of one pair."""

    problem: tuple[str, str] | None = None
    digest: bytes = b""
    bits: bytes = b""
    long_side: int = 0
    soft: int = 0
    pixels: int = 0
    brightest: int = 0
    darkest: int = 0


def check(
    *places: str | Path,
    dataset: Dataset | None = None,
    threads: int | None = None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> CheckReport:
    """Read every pair of a set once and report on it.

    Of each pair some hundred bytes are kept, whatever its size.

    Args:
        places: Folders or tars that make up the set.
        dataset: What it is meant to be; by default told from the names of its folders.
        threads: ``None`` for one per core.
        on_progress: Called with the numbers of pairs looked at and in all.

    Raises:
        InputError: There is no set at ``places``.
    """
    pairs = EvaluationSet(*places)
    findings = {
        "unreadable": Finding("unreadable", "cannot be decoded: training would stop there", stops=True),
        "truncated": Finding("truncated", "ends too early: a decoder fills in grey", stops=True),
        "sizes": Finding("size mismatches", "image and mask are not of one size", stops=True),
        "dark": Finding("dark masks", "nothing in them is brighter than half: 0 and 1, or a palette, in place of 0 and 255", stops=True),
        "orphans": Finding("orphans", "an image without a mask or a mask without an image: left out", stops=False),
        "blank": Finding("blank masks", "all black, or all white", stops=False),
        "grey": Finding("non-binary masks", f"more than {_MOSTLY_SOFT:.0%} of them is neither 0 nor 255", stops=False),
        "same": Finding("same file twice", "a picture that is held out may be trained on as well", stops=False),
        "near": Finding("near duplicates", "likewise: pictures that can hardly be told apart", stops=False),
    }  # fmt: skip
    findings["orphans"].files += map(str, pairs.orphans)
    stems, looks = [], []
    for k, (stem, look) in enumerate(zip(pairs.stems, map_ahead(lambda s: _look(pairs, s), pairs.stems, threads), strict=True)):
        if look.problem is not None:
            kind, seen = look.problem
            findings[kind].files.append(seen)
        if look.pixels:
            _judge_mask(look, str(pairs.masks[stem]), findings)
        if look.bits:
            stems.append(stem)
            looks.append(look)
        on_progress(k + 1, len(pairs))
    findings["blank"].stops = len(findings["blank"].files) == sum(look.pixels > 0 for look in looks)
    _find_twins(stems, looks, findings["same"], findings["near"])
    sides = sorted(look.long_side for look in looks) or [0]
    return CheckReport(
        _count(pairs, dataset),
        list(findings.values()),
        soft_masks=sum(look.soft > 0 for look in looks),
        soft_share=sum(look.soft for look in looks) / max(1, sum(look.pixels for look in looks)),
        smallest=sides[0],
        median=sides[len(sides) // 2],
        largest=sides[-1],
    )


def _look(pairs: EvaluationSet, stem: str) -> _Look:
    image_file, mask_file = pairs.images[stem], pairs.masks[stem]
    try:
        content, image = _read(image_file, decode_picture)
        _, mask = _read(mask_file, decode_grey)
    except InputError as error:
        return _Look(problem=("unreadable", str(error)))
    except EOFError as error:
        return _Look(problem=("truncated", str(error)))
    height, width = image.shape[:2]
    problem = None
    if mask.shape != (height, width):
        problem = ("sizes", f"{image_file} is {width}×{height}, its mask {mask.shape[1]}×{mask.shape[0]}")
    darkest, brightest = int(mask.min()), int(mask.max())
    soft = mask.size - int(np.count_nonzero(mask == 0)) - int(np.count_nonzero(mask == 255))
    digest = hashlib.sha256(content).digest()
    return _Look(problem, digest, _perceptual_hash(image), max(height, width), soft, mask.size, brightest, darkest)


def _read(file: Place, decode: Callable[[bytes, str], NDArray[np.uint8]]) -> tuple[bytes, NDArray[np.uint8]]:
    content = file.read()
    if _ends_early(content):
        raise EOFError(f"{file} ends after {len(content)} bytes")
    return content, decode(content, str(file))


def _ends_early(content: bytes) -> bool:
    """Return whether a JPEG or PNG lacks its end: decoders make a picture of what is there all the same."""
    if content.startswith(b"\xff\xd8"):
        # an embedded thumbnail has an end of its own, but before the picture's own data begin
        return content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda")
    return content.startswith(b"\x89PNG") and b"IEND" not in content[-64:]


def _perceptual_hash(image: NDArray[np.uint8]) -> bytes:
    """Return 256 bits: where the shrunken grey picture becomes brighter from one pixel to its right neighbour."""
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (_HASH_SIDE + 1, _HASH_SIDE), interpolation=cv2.INTER_AREA)
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes()


def _judge_mask(look: _Look, name: str, findings: dict[str, Finding]) -> None:
    if look.brightest == 0 or look.darkest == 255:
        findings["blank"].files.append(name)
    elif look.brightest <= TRUTH_ABOVE:
        findings["dark"].files.append(f"{name}: at most {look.brightest}")
    elif look.soft > _MOSTLY_SOFT * look.pixels:
        findings["grey"].files.append(f"{name}: {look.soft / look.pixels:.0%}")


def _find_twins(stems: list[str], looks: list[_Look], same: Finding, near: Finding) -> None:
    """Report each picture that equals, or nearly equals, an earlier one, beside the one that it is nearest to."""
    first: dict[bytes, int] = {}
    original = [first.setdefault(look.digest, k) for k, look in enumerate(looks)]
    same.files += [f"{stems[k]} = {stems[other]}" for k, other in enumerate(original) if other != k]
    if len(looks) < 2:
        return
    bits = np.unpackbits(np.frombuffer(b"".join(look.bits for look in looks), np.uint8)).reshape(len(looks), -1)
    signs = bits.astype(np.float32) * 2 - 1
    for start in range(0, len(looks), 512):
        rows = slice(start, start + 512)
        agreement = signs[rows] @ signs[: start + 512].T  # number of equal bits less that of others
        agreement[np.triu_indices(len(agreement), start, agreement.shape[1])] = -np.inf  # itself and later ones
        nearest = agreement.argmax(axis=1)
        for row in np.flatnonzero(agreement.max(axis=1) >= bits.shape[1] - 2 * _NEAR):
            k, other = start + int(row), int(nearest[row])
            if original[k] == k:
                near.files.append(f"{stems[k]} ≈ {stems[other]}")


def _count(pairs: EvaluationSet, meant: Dataset | None) -> list[Count]:
    counts: Counter[str] = Counter()
    expected: dict[str, tuple[int, ...]] = {known.name: known.counts for known in DATASETS}
    for stem in pairs.stems:
        folder = pairs.images[stem].folder
        known = meant or dataset_of(folder)
        counts[known.name if known else folder] += 1
    return [Count(name, n, expected.get(name, ())) for name, n in sorted(counts.items())]
