"""Files: writing that is whole or not there, and the two small readings that several rooms need."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgesod.errors import InputError, OutputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# only setting it tells what it was: once, while there is one thread
_UMASK = os.umask(0)
os.umask(_UMASK)


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write ``content`` to ``path`` by way of a temporary neighbour; parents are made.

    Raises:
        OutputError: The disk is full, or the place cannot be written. What was at ``path`` before is still there.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


class Replacement:
    """A temporary file beside a place, for what is written bit by bit: in the end it takes that place, or goes away.

    Its name keeps the suffix, so that libraries which look at it (video, image encoders) work. What it became once, it stays:
    further calls do nothing.

    Attributes:
        path: Of the temporary file.

    Raises:
        OutputError: The place cannot be written.
    """

    def __init__(self, place: str | Path) -> None:
        self._place = Path(place)
        self._is_settled = False
        with _output_errors(self._place):
            if self._place.exists() and not (self._place.is_file() or self._place.is_dir()):
                # moving a file there would do away with the device itself, and root may: /dev/null for everybody
                raise OSError("it is a device or a pipe, not a file")
            self._place.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f".{self._place.stem}-", suffix=self._place.suffix, dir=self._place.parent)
            os.close(handle)
            self.path = Path(name)
            try:
                self.path.chmod(0o666 & ~_UMASK)
            except OSError:
                self.discard()
                raise

    def keep(self) -> None:
        """Move it into its place.

        Raises:
            OutputError: It cannot be moved there, and is gone.
        """
        if self._is_settled:
            return
        try:
            with _output_errors(self._place):
                os.replace(self.path, self._place)
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove it, where it was not kept."""
        self._is_settled = True
        self.path.unlink(missing_ok=True)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield the path of a :class:`Replacement` that is kept when the block ends well, and goes away when not.

    Raises:
        OutputError: An ``OSError`` within the block or while moving into place.
    """
    replacement = Replacement(path)
    try:
        with _output_errors(path):
            yield replacement.path
        replacement.keep()
    finally:
        replacement.discard()


@contextmanager
def replacing_folder(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary folder that takes the place of ``folder`` when the block ends well, and goes away when not.

    Raises:
        OutputError: An ``OSError`` within the block or while moving into place.
    """
    folder = Path(folder)
    temporary: Path | None = None
    is_new_parent = not folder.parent.exists()
    try:
        with _output_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            temporary.chmod(0o777 & ~_UMASK)
            yield temporary
            aside = temporary.with_name(temporary.name + ".old")
            if folder.exists():
                os.replace(folder, aside)
            os.replace(temporary, folder)
            shutil.rmtree(aside, ignore_errors=True)
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        if is_new_parent and not folder.exists():
            with suppress(OSError):
                folder.parent.rmdir()


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Raises:
        InputError: It cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        InputError: It cannot be read or is not TOML.
    """
    try:
        values: dict[str, Any] = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        return values
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from error


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Raises:
        InputError: It cannot be read, is not JSON, or holds something else.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a JSON {type(value).__name__}, not an object")
    return value


def slug(text: str) -> str:
    """Return a name as a file is called: lower case, hyphens for whatever is neither a letter, a digit nor a dot."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


@contextmanager
def _output_errors(what: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write {what}: {error.strerror or error}", hint="make room, or choose another place"
        ) from error
