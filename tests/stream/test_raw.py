"""Raw pictures from a pipe, and the camera that needs no camera."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from edgesod.errors import InputError, UsageError
from edgesod.stream import open_source
from edgesod.stream.sources.options import parse_options
from edgesod.stream.sources.raw import RawSource
from edgesod.stream.sources.synthetic import SyntheticSource
from edgesod.types import Frame
from tests.helpers.video import gather

SIZE = parse_options("width=128,height=72,rate=10")
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 72, 128, 3), np.uint8)


@pytest.fixture
def pipe() -> Iterator[tuple[int, io.FileIO]]:
    reader, writer = os.pipe()
    with io.FileIO(writer, "wb") as end:
        yield reader, end
    os.close(reader)


def feed(writer: io.FileIO, content: bytes) -> threading.Thread:
    """Write in odd pieces from a thread, then close."""

    def work() -> None:
        with writer:
            for at in range(0, len(content), 10_007):
                writer.write(content[at : at + 10_007])

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_every_picture_comes_as_it_was_written(pipe: tuple[int, io.FileIO]) -> None:
    thread = feed(pipe[1], IMAGES.tobytes())
    with RawSource(SIZE, descriptor=pipe[0]) as source:
        assert (source.is_live, source.fps, source.size_hw) == (False, 10, (72, 128))
        frames = list(source)
    thread.join()
    np.testing.assert_array_equal([frame.image for frame in frames], IMAGES)
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_an_end_within_a_picture_is_told(pipe: tuple[int, io.FileIO]) -> None:
    thread = feed(pipe[1], IMAGES.tobytes()[:-1])
    frames: list[Frame] = []
    with RawSource(SIZE, descriptor=pipe[0]) as source:
        with pytest.raises(InputError, match="ends within a picture: 27647 of 27648"):
            gather(source, frames)
    thread.join()
    assert [frame.index for frame in frames] == [0, 1, 2, 3]


def test_closing_ends_the_wait_for_a_writer_that_says_nothing(pipe: tuple[int, io.FileIO]) -> None:
    source, seen = RawSource(SIZE, descriptor=pipe[0]), []
    thread = threading.Thread(target=lambda: seen.extend(source))
    thread.start()
    source.close()
    thread.join(10)
    assert not thread.is_alive()
    assert not seen


@pytest.mark.parametrize("said", ["", "width=128", "height=72", "width=128,height=72,loop=2"])
def test_it_has_to_be_told_the_size(said: str) -> None:
    with pytest.raises(UsageError):
        open_source("-", parse_options(said))


def test_standard_input_is_read_by_the_name_of_a_dash() -> None:
    code = (
        "import sys, hashlib, edgesod; from edgesod.stream.sources.options import parse_options\n"
        "source = edgesod.open_source('-?width=128', parse_options('height=72'))\n"
        "print(*(hashlib.sha256(f.image.tobytes()).hexdigest() for f in source))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=IMAGES.tobytes(), capture_output=True, check=True)
    assert done.stdout.decode().split() == [hashlib.sha256(image.tobytes()).hexdigest() for image in IMAGES]


# --- synthetic


def test_the_truth_of_a_synthetic_picture_is_where_it_differs_from_the_background() -> None:
    source = SyntheticSource(parse_options("width=160,height=120,rate=50"))
    pictures = np.array([source.picture(k) for k in range(0, 400, 10)])
    background = np.median(pictures, axis=0)
    for k, image in zip(range(0, 400, 10), pictures, strict=True):
        truth = source.truth(k)
        differs = np.abs(image - background).max(axis=2) > 0
        assert set(np.unique(truth)) == {0, 255}
        np.testing.assert_array_equal(differs, truth == 255)
    assert len({source.truth(k).tobytes() for k in range(40)}) > 30


def test_a_synthetic_camera_keeps_its_rate_and_skips_what_nobody_fetches() -> None:
    with open_source("synthetic://?rate=50&end=1") as source:
        assert (source.is_live, source.fps, source.size_hw) == (True, 50, (480, 640))
        begun_s, indices = time.perf_counter(), []
        for frame in source:
            indices.append(frame.index)
            assert frame.time_s == frame.index / 50
            if frame.index < 25:
                time.sleep(0.05)
        lasted_s = time.perf_counter() - begun_s
    assert indices == sorted(set(indices))
    assert sum(index < 25 for index in indices) < 15
    assert lasted_s > 0.95


@pytest.mark.parametrize("uri", ["synthetic://name", "synthetic://?rate=0", "synthetic://?loop=1"])
def test_what_is_no_synthetic_camera_is_refused(uri: str) -> None:
    with pytest.raises(UsageError):
        open_source(uri)
