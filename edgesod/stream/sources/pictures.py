"""Still pictures: one, a folder of them, or a numbered sequence."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgesod.errors import InputError
from edgesod.processing.pictures import list_pictures, read_picture
from edgesod.stream.base import Source
from edgesod.stream.sources.options import SourceOptions, check_options
from edgesod.stream.uri import sequence_regex
from edgesod.types import Frame

PICTURES = frozenset(("rate", "loop"))
"""The options that pictures take."""


class PicturesSource(Source):
    """Picture files, in the order given; each is read when its turn comes.

    Args:
        paths: At least one.
        name: What messages call the whole of it.
        options: ``rate``, pictures a second, gives them times; without it every time is 0.

    Raises:
        UsageError: An option that means nothing to pictures.
    """

    def __init__(self, paths: Sequence[Path], name: str, options: SourceOptions | None = None) -> None:
        options = options or SourceOptions()
        check_options(options, "a picture", PICTURES)
        self.name = name
        self.fps = options.rate
        self.num_frames = len(paths)
        self._paths = paths

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self._paths):
            image = read_picture(path)
            yield Frame(image, index, index / self.fps if self.fps else 0.0, path.name, time.perf_counter())

    @classmethod
    def from_folder(cls, folder: Path, options: SourceOptions | None = None) -> PicturesSource:
        """Take the pictures of a folder, sorted by name; folders within are left out.

        Raises:
            InputError: There is none.
        """
        return cls(list_pictures(folder), str(folder), options)

    @classmethod
    def from_sequence(cls, pattern: Path, options: SourceOptions | None = None) -> PicturesSource:
        """Take the files that a pattern such as ``img_%04d.png`` names, sorted by number; gaps are passed over.

        Raises:
            InputError: There is none.
        """
        regex = sequence_regex(pattern.name)
        names = [path.name for path in pattern.parent.iterdir()] if pattern.parent.is_dir() else []
        numbered = sorted((int(found[1]), name) for name in names if (found := regex.fullmatch(name)))
        if not numbered:
            raise InputError(f"no file matches {pattern}")
        return cls([pattern.parent / name for _, name in numbered], str(pattern), options)
