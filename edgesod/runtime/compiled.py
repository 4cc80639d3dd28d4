"""The compiled form of a network, kept beside its engine: a second start loads it instead of compiling again.

It is a cache and nothing else: one file, replaced whole, that is used only where it was made from the very same ONNX by the
very same backend for this CPU, and only if it is as it was written. Whatever is wrong with it, the network is compiled as if it
were not there; where it cannot be written, nothing is kept.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from edgesod.errors import OutputError
from edgesod.files import sha256_of, write_atomically

FILE_NAME = "compiled.bin"

_MAGIC = b"edgesod compiled network 1\n"
_DIGEST_BYTES = hashlib.sha256().digest_size

log = logging.getLogger("edgesod.runtime")


class CompiledFile:
    """One such file.

    Args:
        folder: The engine folder it is kept in.
        onnx: What is compiled.
        conditions: Whatever else decides what comes of it: backend, its version and settings, the CPU.
    """

    def __init__(self, folder: Path, onnx: Path, conditions: tuple[str, ...]) -> None:
        self._path = folder / FILE_NAME
        self._key = hashlib.sha256("\0".join((sha256_of(onnx), *conditions)).encode()).digest()

    def read(self) -> bytes | None:
        """Return what was compiled, ``None`` where there is nothing or not for these conditions."""
        head = len(_MAGIC) + 2 * _DIGEST_BYTES
        try:
            content = self._path.read_bytes()
        except OSError:
            return None
        body = content[head:]
        if content[:head] == _MAGIC + self._key + hashlib.sha256(body).digest():
            return body
        log.debug("%s belongs to another network, version or CPU, or is damaged: compiling anew", self._path)
        return None

    def write(self, body: bytes) -> None:
        """Keep what was compiled, in place of what was kept before; where that is impossible, keep nothing."""
        try:
            write_atomically(self._path, _MAGIC + self._key + hashlib.sha256(body).digest() + body)
        except OutputError as error:
            log.debug("not kept for the next start: %s", error)
