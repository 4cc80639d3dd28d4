"""Masks in shared memory, for another process on the same machine: one writes, any number read, nobody waits for anybody.

The ring is a file in ``/dev/shm`` (which is what POSIX calls shared memory) that both sides map. All numbers are little-endian::

    header, 64 bytes
       0  8 s   "EDGESODR"
       8  u32   version of this layout, 1
      12  u32   slots
      16  u64   bytes of a slot, its head included
      24  u64   frames written so far; frame n, counted from 0, is in slot n mod slots
      32  u32   1 once the writer has finished, 0 before
      36  u32   process of the writer
    then the slots, each with a head of 64 bytes
       0  u64   sequence: 2n + 1 while frame n is being written, 2n + 2 once it is whole
       8  u32   height, 12 u32 width, in pixels
      16  u64   index of the frame in its source
      24  u32   which source, 28 u32 unused
      32  u64   nanoseconds of CLOCK_MONOTONIC when the frame was complete
      40  f64   its time in the source, in seconds
      48  i32 ×4  box of the largest subject: x, y, width, height in pixels; width 0 for none
    and then the mask, uint8, height × width, 0 or 255

A reader reads the sequence, the slot, and the sequence again: only where both are 2n + 2 did nobody write in between.

The writer holds an exclusive ``flock`` on the file for as long as it lives: so a second one knows that the name is taken, and a reader
that the writer is gone, also where it was killed.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgesod.errors import InputError, OutputError, UsageError
from edgesod.files import replacing
from edgesod.stream.base import Sink
from edgesod.types import Frame, Mask, Result

VERSION = 1
SLOTS = 4

_MAGIC = b"EDGESODR"
_HEADER = struct.Struct("<8sIIQQII24x")
_COUNT, _FINISHED = struct.Struct("<Q"), struct.Struct("<I")
_COUNT_AT, _FINISHED_AT = 24, 32
_SLOT = struct.Struct("<IIQIIQd4i")
_HEAD_BYTES = 64
_POLL_S = 0.001
_OPEN_POLL_S = 0.05


@dataclass(frozen=True, eq=False)
class RingFrame:
    """A mask as it came from a ring.

    Attributes:
        mask: uint8 ``(H, W)``, 0 or 255; the caller's own.
        number: Which frame of the run, from 0; a gap means that some were missed.
        index: Position in its source.
        source: Which of several sources.
        captured_at_s: When the picture was complete, by ``time.monotonic()``, which both processes share.
        time_s: Presentation time within the source in seconds.
        box: ``(x, y, width, height)`` of the largest subject in pixels, or ``None``.
    """

    mask: Mask
    number: int
    index: int
    source: int
    captured_at_s: float
    time_s: float
    box: tuple[int, int, int, int] | None

    @property
    def age_s(self) -> float:
        """How old the picture is now, in seconds."""
        return time.monotonic() - self.captured_at_s


class RingSink(Sink):
    """Writes every frame's mask into a ring, made when the first one shows how large it has to be.

    Args:
        name: Letters, digits, ``-``, ``_`` and ``.``; the ring is ``/dev/shm/edgesod-NAME``. One that an earlier run left
            behind is replaced.

    Raises:
        UsageError: Not such a name.
        OutputError: Another run writes to it.
    """

    wants_picture = False

    def __init__(self, name: str) -> None:
        self.name = f"ring://{name}"
        self._path = ring_path(name)
        self._refuse_a_second()
        self._map: mmap.mmap | None = None
        self._slot_bytes = 0
        self._num_written = 0

    def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
        """See :meth:`Sink.write`."""
        if result is None:
            raise OutputError(f"{self.name} takes masks, and there is no network here")
        mask = np.ascontiguousarray(result.mask)
        height, width = mask.shape
        if self._map is None:
            self._begin(mask.nbytes)
        assert self._map is not None
        if mask.nbytes > self._slot_bytes - _HEAD_BYTES:
            held = self._slot_bytes - _HEAD_BYTES
            raise OutputError(
                f"{self.name} was made for masks of {held} bytes, frame {frame.index} is {width}×{height}",
                hint="start again with the larger size",
            )
        # On Linux `perf_counter` and `monotonic` are one clock; elsewhere the difference is taken here.
        captured_s = frame.captured_at_s + (time.monotonic() - time.perf_counter())
        box = result.box or (0, 0, 0, 0)
        number, at = self._num_written, self._at(self._num_written)
        _COUNT.pack_into(self._map, at, 2 * number + 1)
        _fence()
        _SLOT.pack_into(
            self._map, at + 8, height, width, frame.index, frame.source, 0, max(0, round(captured_s * 1e9)), frame.time_s, *box
        )
        self._map[at + _HEAD_BYTES : at + _HEAD_BYTES + mask.nbytes] = memoryview(mask).cast("B")  # type: ignore[arg-type]
        _fence()
        _COUNT.pack_into(self._map, at, 2 * number + 2)
        _fence()
        self._num_written += 1
        _COUNT.pack_into(self._map, _COUNT_AT, self._num_written)

    def close(self) -> None:
        """Say that nothing more comes, and take the ring's name away; who has it open can still read the last frames."""
        if self._map is None:
            return
        _FINISHED.pack_into(self._map, _FINISHED_AT, 1)
        self._map.close()
        self._map = None
        self._path.unlink(missing_ok=True)
        self._file.close()  # last: until then the name is ours

    def abort(self) -> None:
        """See :meth:`Sink.abort`."""
        self.close()

    def _at(self, number: int) -> int:
        return _HEADER.size + number % SLOTS * self._slot_bytes

    def _begin(self, mask_bytes: int) -> None:
        self._slot_bytes = _HEAD_BYTES + (mask_bytes + 63) // 64 * 64
        length = _HEADER.size + SLOTS * self._slot_bytes
        with _alone_in(self._path.parent), ExitStack() as opened:
            self._refuse_a_second()  # the first frame may come long after the opening
            # Moved into place whole, so that a reader finds a ring or none.
            with replacing(self._path) as temporary:
                file = opened.enter_context(open(temporary, "r+b"))  # its lock lasts as long as the ring
                fcntl.flock(file, fcntl.LOCK_EX)
                os.posix_fallocate(file.fileno(), 0, length)
                memory = opened.enter_context(mmap.mmap(file.fileno(), length))
                _HEADER.pack_into(memory, 0, _MAGIC, VERSION, SLOTS, self._slot_bytes, 0, 0, os.getpid())
            opened.pop_all()
        self._file, self._map = file, memory

    def _refuse_a_second(self) -> None:
        try:
            with open(self._path, "rb") as file:
                is_taken = _is_written(file)
        except OSError:
            return  # none there, or one that writing will complain of
        if is_taken:
            raise OutputError(f"another run writes to {self.name}", hint=f"end that one, or choose another name: {self.name}-2")


class Ring:
    """What a :class:`RingSink` writes, from another process; never a mask that is half one frame and half another.

    Args:
        name: The ring's name, as in ``--out ring://NAME``.

    Raises:
        InputError: There is no such ring, nobody writes to it any more, or it has another layout.
        UsageError: Not a name.
    """

    def __init__(self, name: str) -> None:
        path = ring_path(name)
        hint = f"edgesod run … --out ring://{name}"
        try:
            self._file = open(path, "rb")  # noqa: SIM115  (asked later whether the writer lives)
        except OSError as error:
            raise InputError(f"there is no ring {name}: nobody has written a frame to it yet", hint=hint) from error
        foreign = InputError(f"{path} is no ring of version {VERSION}", hint="run the same edgesod on both sides")
        if os.fstat(self._file.fileno()).st_size < _HEADER.size:
            self._file.close()
            raise foreign
        self._map = mmap.mmap(self._file.fileno(), 0, prot=mmap.PROT_READ)
        magic, version, self._slots, self._slot_bytes, *_ = _HEADER.unpack_from(self._map, 0)
        if magic != _MAGIC or version != VERSION:
            self.close()
            raise foreign
        if not _is_written(self._file):
            self.close()
            raise InputError(f"nobody writes to the ring {name} any more: a run that was killed left it behind", hint=hint)
        self._num_read = 0

    @property
    def is_finished(self) -> bool:
        """Whether the writer has finished or is gone; what it wrote last can still be read."""
        return bool(_FINISHED.unpack_from(self._map, _FINISHED_AT)[0]) or not _is_written(self._file)

    def latest(self) -> RingFrame | None:
        """Return the newest frame, or ``None`` where there is none that was not returned before."""
        while (num_written := int(_COUNT.unpack_from(self._map, _COUNT_AT)[0])) > self._num_read:
            _fence()
            if found := self._read(num_written - 1):
                self._num_read = num_written
                return found
        return None

    def wait(self, timeout_s: float = 1.0) -> RingFrame | None:
        """Return the next frame that was not returned before, the newest; ``None`` after ``timeout_s`` or once it is finished."""
        end_s = time.perf_counter() + timeout_s
        while True:
            is_last_look = self.is_finished or time.perf_counter() >= end_s
            if (found := self.latest()) or is_last_look:
                return found
            time.sleep(_POLL_S)

    def close(self) -> None:
        """Let go of the memory; safe to call twice."""
        self._map.close()
        self._file.close()

    def __enter__(self) -> Ring:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _read(self, number: int) -> RingFrame | None:
        """Return a frame, or ``None`` where the writer has come round to its slot meanwhile."""
        at, whole = _HEADER.size + number % self._slots * self._slot_bytes, 2 * number + 2
        if _COUNT.unpack_from(self._map, at)[0] != whole:
            return None
        _fence()
        height, width, index, source, _, captured_ns, time_s, *box = _SLOT.unpack_from(self._map, at + 8)
        start = at + _HEAD_BYTES
        content = self._map[start : min(start + height * width, len(self._map))]
        _fence()
        if _COUNT.unpack_from(self._map, at)[0] != whole:
            return None
        mask: Mask = np.frombuffer(bytearray(content), np.uint8).reshape(height, width)
        return RingFrame(mask, number, index, source, captured_ns / 1e9, time_s, tuple(box) if box[2] else None)


def open_ring(name: str, timeout_s: float = 0.0) -> Ring:
    """Open a ring that ``edgesod run … --out ring://NAME`` writes; see :class:`Ring`.

    Args:
        name: The ring's.
        timeout_s: How long to wait for somebody to write to it: robots start their programs in any order.
    """
    end_s = time.perf_counter() + timeout_s
    while True:
        try:
            return Ring(name)
        except InputError:
            if time.perf_counter() >= end_s:
                raise
        time.sleep(_OPEN_POLL_S)


def ring_path(name: str) -> Path:
    """Return the file of a ring.

    Raises:
        UsageError: A name with anything but letters, digits, ``-``, ``_`` and ``.``.
    """
    if not name or not all(sign.isalnum() or sign in "-_." for sign in name) or not name.isascii():
        raise UsageError(f"{name!r} is no name of a ring", hint="letters, digits, - and _: ring://masks")
    shared = Path("/dev/shm")
    return (shared if shared.is_dir() else Path(tempfile.gettempdir())) / f"edgesod-{name}"


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other runs from making a ring at the same time: two would both find a name free."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _is_written(file: IO[bytes]) -> bool:
    """Tell whether a writer lives that holds the lock of a ring's file; those who ask do not get into each other's way."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


_barrier = threading.Lock()


def _fence() -> None:
    """Keep what is before and what is behind it apart in memory: ARM reorders plain stores, and a lock's do not pass each other."""
    with _barrier:
        pass
    with _barrier:
        pass
