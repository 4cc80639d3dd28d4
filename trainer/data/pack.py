"""One or several sets as one tar of a size budget, which training and evaluation read in place."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.errors import InputError, UsageError
from edgesod.evaluation.datasets import dataset_of
from edgesod.evaluation.pairs import EvaluationSet, Place, evenly_spread
from edgesod.files import replacing

from .threads import map_ahead

SIDES = (512, 448, 400, 352, 320, 288, 256, 224, 192, 160, 128, 96)
"""Longest sides tried, in pixels."""
_QUALITIES = (30, 95)  # JPEG, lowest and highest
_LEVELS = 8  # of a mask: enough for an edge three pixels wide

_SAMPLE = 64
_JUDGED_AT = 320  # pixels of the longest side at which the loss is told: what networks here are fed in the end
_MARGIN = 0.985  # a sample predicts the size of the whole to about a hundredth
_BLOCK = tarfile.BLOCKSIZE

_JPEG = (cv2.IMWRITE_JPEG_OPTIMIZE, 1)
# run lengths without a filter: a tenth of the time of the smallest file, and a twentieth larger; not every OpenCV can
_PNG = (
    (cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE)
    if hasattr(cv2, "IMWRITE_PNG_FILTER")
    else ()
)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Quality:
    """How pictures are stored.

    Attributes:
        side: Longest side in pixels; smaller pictures keep their size.
        jpeg: JPEG quality.
        psnr: What is left of a sample of the pictures, in dB, looked at with a longest side of 320 pixels.
    """

    side: int
    jpeg: int
    psnr: float


@dataclass(frozen=True)
class Packed:
    """What came of it.

    Attributes:
        pairs: Images with a mask.
        num_bytes: Of the tar.
        quality: ``None`` where the files fit as they were.
    """

    pairs: int
    num_bytes: int
    quality: Quality | None


class _Member(NamedTuple):
    """A pair, and what it is called in the tar: ``<folder>/images/<name>``."""

    folder: str
    name: str
    pairs: EvaluationSet
    stem: str

    @property
    def files(self) -> tuple[tuple[str, Place], ...]:
        return ("images", self.pairs.images[self.stem]), ("masks", self.pairs.masks[self.stem])


class _TooLarge(Exception):
    pass


def pack(
    *places: str | Path,
    out: str | Path,
    max_bytes: int,
    threads: int | None = None,
    on_progress: Progress = lambda *_: None,
) -> Packed:
    """Write the pairs of folders and tars to one tar of at most ``max_bytes``.

    Files are copied as they are where they fit. Else each picture is stored as a JPEG and each mask as a PNG of 8 grey levels, at
    the longest side and the JPEG quality that keep most of a sample of the pictures at that size. Stems that several sets use
    get the set's name before them. The same pairs give the same file.

    Args:
        places: Each is one set, or a part of one.
        out: The tar; what is there is replaced when the new one is whole.
        max_bytes: Budget, headers included.
        threads: ``None`` for one per core.
        on_progress: Called with the numbers of pairs done and in all; once more from the start where the first attempt was
            too large.

    Raises:
        InputError: There is no set at a place, two files stand for one stem of a set, or a file cannot be read.
        UsageError: The budget is too small, or ``out`` is what is read.
        OutputError: The tar cannot be written.
    """
    out = Path(out)
    if any(Path(place).resolve() == out.resolve() for place in places):
        raise UsageError(f"{out} is what is read", hint="write to another file")
    members = _members(places)
    on_progress(0, len(members))
    before = sum(_blocks(file.num_bytes) for member in members for _, file in member.files)
    if _tar_size(before) <= max_bytes:
        try:
            return Packed(len(members), _write(out, members, None, max_bytes, threads, on_progress), None)
        except _TooLarge:
            pass  # long names take blocks of their own
    budget = max_bytes * _MARGIN
    while True:
        quality = _choose(members, budget, max_bytes)
        try:
            return Packed(len(members), _write(out, members, quality, max_bytes, threads, on_progress), quality)
        except _TooLarge:
            budget *= _MARGIN


def encode_pair(image: NDArray[np.uint8], mask: NDArray[np.uint8], side: int, jpeg: int) -> tuple[bytes, bytes]:
    """Return a pair as JPEG and PNG.

    Args:
        image: uint8 BGR ``(H, W, 3)``.
        mask: uint8 ``(H, W)``.
        side: Longest side in pixels; a smaller pair keeps its size.
        jpeg: Quality of the JPEG.
    """
    levels = np.rint(_shrink(mask, side) / 255 * (_LEVELS - 1)) * (255 / (_LEVELS - 1))
    files = (
        cv2.imencode(".jpg", _shrink(image, side), (cv2.IMWRITE_JPEG_QUALITY, jpeg, *_JPEG)),
        cv2.imencode(".png", np.rint(levels).astype(np.uint8), (cv2.IMWRITE_PNG_COMPRESSION, 9, *_PNG)),
    )
    return files[0][1].tobytes(), files[1][1].tobytes()


def _members(places: tuple[str | Path, ...]) -> list[_Member]:
    found: dict[tuple[str, str], _Member] = {}
    for place in places:
        pairs = EvaluationSet(place)
        for stem in pairs.stems:
            within = pairs.images[stem].folder
            known = dataset_of(within)
            folder = known.name.lower() if known else within.partition("/")[0]
            if other := found.get((folder, stem)):
                raise InputError(
                    f"two files stand for {stem} of {folder}: {other.files[0][1]} and {pairs.images[stem]}",
                    hint="name each set, and each part of one, once",
                )
            found[folder, stem] = _Member(folder, stem, pairs, stem)
    times = Counter(stem for _, stem in found)
    named = (m._replace(name=f"{m.folder}-{m.stem}") if times[m.stem] > 1 else m for m in found.values())
    return sorted(named, key=lambda member: (member.folder, member.name))


def _write(
    out: Path, members: list[_Member], quality: Quality | None, max_bytes: int, threads: int | None, on_progress: Progress
) -> int:
    """Return the size of the tar written; raises _TooLarge, and leaves what was there, when it grows past the budget."""

    def encode(member: _Member) -> list[tuple[str, bytes]]:
        if quality is None:
            return [
                (f"{kind}/{member.name}{PurePosixPath(file.name).suffix.lower()}", file.read()) for kind, file in member.files
            ]
        jpeg, png = encode_pair(*member.pairs.read(member.stem), quality.side, quality.jpeg)
        return [(f"images/{member.name}.jpg", jpeg), (f"masks/{member.name}.png", png)]

    with replacing(out) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as tar:
            for k, (member, files) in enumerate(zip(members, map_ahead(encode, members, threads), strict=True)):
                for name, content in files:
                    info = tarfile.TarInfo(f"{member.folder}/{name}")  # time, owner and mode are always the same
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
                if _tar_size(tar.offset) > max_bytes:
                    raise _TooLarge
                on_progress(k + 1, len(members))
        return temporary.stat().st_size


def _choose(members: list[_Member], budget: float, max_bytes: int) -> Quality:
    """Return the side and JPEG quality that lose least of a sample among those at which the whole fits."""
    sample = evenly_spread(members, _SAMPLE)
    pairs = [tuple(_shrink(part, SIDES[0]) for part in member.pairs.read(member.stem)) for member in sample]
    seen = [_shrink(image, _JUDGED_AT) for image, _ in pairs]
    # what a file shrinks to goes with its size, so a sample's ratio tells more than its mean
    images, masks = (
        sum(member.files[part][1].num_bytes for member in members) / max(1, sum(m.files[part][1].num_bytes for m in sample))
        for part in (0, 1)
    )

    def size_of(files: list[tuple[bytes, bytes]]) -> int:
        grown = images * sum(_blocks(len(jpeg)) - _BLOCK for jpeg, _ in files)
        grown += masks * sum(_blocks(len(png)) - _BLOCK for _, png in files)
        return _tar_size(int(grown) + 2 * _BLOCK * len(members))

    def encode(side: int, jpeg: int) -> list[tuple[bytes, bytes]]:
        return [encode_pair(image, mask, side, jpeg) for image, mask in pairs]

    longest = max(max(mask.shape) for _, mask in pairs)
    found: list[Quality] = []
    for side in [longest, *(side for side in SIDES if side < longest)]:
        smallest = size_of(encode(side, _QUALITIES[0]))
        if smallest > budget:
            continue
        low, high = _QUALITIES
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if size_of(encode(side, middle)) <= budget else (low, middle - 1)
        found.append(Quality(side, low, _psnr(seen, [jpeg for jpeg, _ in encode(side, low)])))
        if len(found) > 1 and found[-1].psnr < found[-2].psnr:
            break
    if not found:
        needed = smallest * max_bytes / budget / 1e6
        raise UsageError(
            f"{len(members)} pairs do not fit into {max_bytes / 1e6:.2f} MB: at {side} pixels and JPEG quality "
            f"{_QUALITIES[0]} they take about {needed:.2f} MB",
            hint=f"--max-mb {needed + 0.01:.2f}, or fewer pairs",
        )
    return max(found, key=lambda quality: quality.psnr)


def _psnr(seen: list[NDArray[np.uint8]], files: list[bytes]) -> float:
    """Return how near decoded files, brought to the size of the originals, are to them, in dB over all their pixels."""
    error, pixels = 0.0, 0
    for original, file in zip(seen, files, strict=True):
        height, width = original.shape[:2]
        decoded = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
        is_larger = decoded.shape[0] > height
        same = cv2.resize(decoded, (width, height), interpolation=cv2.INTER_AREA if is_larger else cv2.INTER_LINEAR)
        error += float(np.square(same.astype(np.float32) - original).sum())
        pixels += original.size
    return float(10 * np.log10(255**2 * pixels / max(error, 1e-9)))


def _shrink(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return a picture with its longest side at most ``side`` pixels."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return picture
    size_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA), np.uint8)


def _blocks(num_bytes: int) -> int:
    """Return what a file takes in a tar: its header, and itself up to the next block."""
    return _BLOCK + -(-num_bytes // _BLOCK) * _BLOCK


def _tar_size(num_bytes: int) -> int:
    """Return the size of a tar of so many bytes of members: two empty blocks end it, and it is filled up to a record."""
    return -(-(num_bytes + 2 * _BLOCK) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
