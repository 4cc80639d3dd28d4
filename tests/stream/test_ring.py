"""The ring: what another process reads is what was written, whole, however fast it is written."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgesod.errors import InputError, OutputError, UsageError
from edgesod.stream import Sink, open_sink
from edgesod.stream.sinks import ring
from edgesod.stream.sinks.ring import open_ring, ring_path
from edgesod.types import Frame, Result


@pytest.fixture
def name(tmp_path: Path) -> Iterator[str]:
    name = f"test-{tmp_path.name}"
    yield name
    ring_path(name).unlink(missing_ok=True)


def result_of(level: int, size_hw: tuple[int, int] = (48, 64)) -> Result:
    """Return a result whose mask is white in its first ``level`` rows."""
    saliency = np.zeros(size_hw, np.float32)
    saliency[:level] = 1
    return Result(saliency, size_hw)


def frame_of(index: int, size_hw: tuple[int, int] = (48, 64), source: int = 0) -> Frame:
    return Frame(np.zeros((*size_hw, 3), np.uint8), index, index / 25, "x", time.perf_counter(), source)


def test_what_is_read_is_what_was_written(name: str) -> None:
    with open_sink(f"ring://{name}") as sink:
        sink.write(frame_of(7).image, frame_of(7, source=1), result_of(12))
        with open_ring(name) as reader:
            found = reader.latest()
            assert found is not None
            np.testing.assert_array_equal(found.mask, result_of(12).mask)
            assert (found.number, found.index, found.source, found.time_s) == (0, 7, 1, 7 / 25)
            assert found.box == tuple(result_of(12).box or ())
            assert 0 <= found.age_s < 60
            assert reader.latest() is None
            for index in range(20):
                sink.write(frame_of(index).image, frame_of(index), result_of(index))
            newest = reader.wait()
            assert newest is not None
            assert (newest.number, newest.index) == (20, 19)
            sink.close()
            assert reader.is_finished
            assert reader.wait(60) is None
    assert not ring_path(name).exists()


def test_the_layout_is_as_documented(name: str) -> None:
    with open_sink(f"ring://{name}") as sink:
        for index in range(6):
            sink.write(frame_of(index).image, frame_of(index), result_of(index))
        content = ring_path(name).read_bytes()
    magic, version, slots, slot_bytes, count, finished = struct.unpack_from("<8sIIQQI", content)
    assert (magic, version, slots, count, finished) == (b"EDGESODR", 1, 4, 6, 0)
    at = 64 + 5 % slots * slot_bytes
    sequence, height, width, index, source = struct.unpack_from("<QIIQI", content, at)
    assert (sequence, height, width, index, source) == (12, 48, 64, 5, 0)
    mask = np.frombuffer(content, np.uint8, 48 * 64, at + 64).reshape(48, 64)
    np.testing.assert_array_equal(mask, result_of(5).mask)


def test_a_slot_that_is_being_written_is_never_returned(name: str) -> None:
    with open_sink(f"ring://{name}") as sink, pytest.MonkeyPatch.context() as patch:
        sink.write(frame_of(0).image, frame_of(0), result_of(1))
        with open_ring(name) as reader:
            num_fences = 0

            def overwritten() -> None:  # the writer comes round to the slot while it is being read
                nonlocal num_fences
                num_fences += 1
                if num_fences == 3:
                    patch.undo()
                    for index in range(1, 9):
                        sink.write(frame_of(index).image, frame_of(index), result_of(index))

            patch.setattr(ring, "_fence", overwritten)
            found = reader.latest()
            assert found is not None
            assert found.index == 8
            np.testing.assert_array_equal(found.mask, result_of(8).mask)


_WRITE = """
import sys, time
import numpy as np
from edgesod.stream import Sink, open_sink
from edgesod.types import Frame, Result
image = np.zeros((240, 320, 3), np.uint8)
results = [Result(np.full((240, 320), level % 2, np.float32), (240, 320)) for level in range(2)]
for result in results: result.mask
end_s = time.perf_counter() + 2
with open_sink(f"ring://{sys.argv[1]}") as sink:
    k = 0
    while time.perf_counter() < end_s:
        sink.write(image, Frame(image, k, 0.0, "", time.perf_counter()), results[k % 2])
        k += 1
"""


def test_another_process_never_sees_a_torn_mask(name: str) -> None:
    writer = subprocess.Popen([sys.executable, "-c", _WRITE, name])
    try:
        while writer.poll() is None and not ring_path(name).exists():
            time.sleep(0.01)
        seen = []
        with open_ring(name) as reader:
            while found := reader.wait(5):
                assert found.mask.min() == found.mask.max() == 255 * (found.index % 2)
                seen.append(found.index)
        assert len(seen) > 10
        assert seen == sorted(set(seen))
    finally:
        writer.kill()
        writer.wait()


def test_a_name_that_another_run_writes_to_is_refused(name: str) -> None:
    with open_sink(f"ring://{name}") as first:
        second = open_sink(f"ring://{name}")  # nothing is written yet: nobody owns the name
        first.write(frame_of(0).image, frame_of(0), result_of(1))
        with pytest.raises(OutputError, match="another run writes"):
            open_sink(f"ring://{name}")
        with pytest.raises(OutputError, match="another run writes"):
            second.write(frame_of(1).image, frame_of(1), result_of(2))
        second.close()
        with open_ring(name) as reader:
            found = reader.latest()
            assert found is not None
            assert found.index == 0
    with open_sink(f"ring://{name}") as third:
        third.write(frame_of(3).image, frame_of(3), result_of(3))
        with open_ring(name) as reader:
            assert not reader.is_finished


def test_of_two_that_begin_at_once_one_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    barrier, refused = threading.Barrier(2), []
    fill = os.posix_fallocate
    monkeypatch.setattr(os, "posix_fallocate", lambda *args: (time.sleep(0.2), fill(*args)))  # for the other one to catch up
    sinks = [open_sink(f"ring://{name}") for _ in range(2)]

    def begin(sink: Sink) -> None:
        barrier.wait()
        try:
            sink.write(frame_of(0).image, frame_of(0), result_of(1))
        except OutputError as error:
            refused.append((sink, str(error)))

    threads = [threading.Thread(target=begin, args=(sink,)) for sink in sinks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ((loser, message),) = refused
    assert "another run writes" in message
    loser.close()
    with open_ring(name) as reader:
        assert reader.latest() is not None
    for sink in sinks:
        sink.close()


def test_a_ring_that_cannot_be_put_in_its_place_is_an_output_error(name: str) -> None:
    sink = open_sink(f"ring://{name}")
    ring_path(name).mkdir()
    try:
        with pytest.raises(OutputError, match="cannot write"):
            sink.write(frame_of(0).image, frame_of(0), result_of(1))
        sink.abort()  # what is there is not its own to take away
        assert ring_path(name).is_dir()
    finally:
        ring_path(name).rmdir()


def test_a_reader_hears_that_the_writer_was_killed_and_the_next_one_takes_its_place(name: str) -> None:
    writer = subprocess.Popen([sys.executable, "-c", _WRITE.replace("+ 2", "+ 60"), name])
    try:
        with open_ring(name, timeout_s=30) as reader:  # which is there before the writer
            assert reader.wait(30) is not None
            assert not reader.is_finished
            writer.kill()
            writer.wait()
            began_s = time.perf_counter()
            while reader.wait(60) is not None:
                pass
            assert reader.is_finished
            assert time.perf_counter() - began_s < 30, "it waited for one that is gone"
    finally:
        writer.kill()
        writer.wait()
    with pytest.raises(InputError, match="killed"):
        open_ring(name)
    with open_sink(f"ring://{name}") as sink:
        sink.write(frame_of(5).image, frame_of(5), result_of(5))
        with open_ring(name) as reader:
            found = reader.latest()
            assert found is not None
            assert found.index == 5


def test_what_is_no_ring_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="no ring") as caught:
        open_ring(name)
    assert f"--out ring://{name}" in caught.value.hint
    ring_path(name).write_bytes(b"\0" * 4096)
    with pytest.raises(InputError, match="version 1"):
        open_ring(name)
    ring_path(name).write_bytes(b"")
    with pytest.raises(InputError, match="version 1"):
        open_ring(name)
    for wrong in ("", "../x", "a/b", "ä"):
        with pytest.raises(UsageError):
            open_sink(f"ring://{wrong}")


def test_a_larger_mask_than_the_first_is_refused(name: str) -> None:
    with open_sink(f"ring://{name}") as sink:
        sink.write(frame_of(0).image, frame_of(0), result_of(1))
        small = result_of(1, (24, 32))
        sink.write(frame_of(1).image, frame_of(1, (24, 32)), small)
        with open_ring(name) as reader:
            found = reader.latest()
            assert found is not None
            np.testing.assert_array_equal(found.mask, small.mask)
        with pytest.raises(OutputError, match="128×96"):
            sink.write(frame_of(2).image, frame_of(2), result_of(1, (96, 128)))
