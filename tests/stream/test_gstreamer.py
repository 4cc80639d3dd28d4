"""CSI cameras: what GStreamer delivers through a pipe, how it ends, and that no text ever becomes an element."""

from __future__ import annotations

import random
import re
import shutil
import string
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesod.errors import BackendError, EdgesodError, InputError, SourceLost, UsageError
from edgesod.stream import open_source, stream_results
from edgesod.stream.sources import gstreamer
from edgesod.stream.sources.options import SourceOptions, parse_options
from edgesod.types import Result

QUICK = "open_timeout=20,read_timeout=5,reconnect=0"


@pytest.fixture
def test_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let GStreamer's test picture take the place of the camera; everything else is as it runs on a board."""
    if shutil.which("gst-launch-1.0") is None:
        pytest.skip("needs Debian's packages gstreamer1.0-tools and gstreamer1.0-plugins-base")

    def elements(number: int, options: SourceOptions) -> list[str]:
        size = f"width={options.width},height={options.height},framerate={int(options.rate or 0)}/1"
        pattern = ["videotestsrc", "is-live=true", "pattern=blue", f"num-buffers={40 if number else -1}"]
        return [*pattern, "!", f"video/x-raw,format=I420,{size}"]

    monkeypatch.setattr(gstreamer, "_camera_elements", elements)


@pytest.mark.usefixtures("test_camera")
def test_a_camera_delivers_bgr_at_its_size() -> None:
    with open_source("csi://0?width=322&height=240&rate=30", parse_options(QUICK)) as source:
        assert (source.name, source.is_live, source.fps, source.size_hw) == ("csi://0", True, 30, (240, 322))
        frames = [frame for frame, _ in zip(source, range(10), strict=False)]
    assert [frame.index for frame in frames] == list(range(10))
    for frame in frames:
        assert frame.image.shape == (240, 322, 3)
        assert np.abs(frame.image.reshape(-1, 3).mean(axis=0) - (255, 0, 0)).max() < 3
    times_s = [frame.time_s for frame in frames]
    assert times_s == sorted(times_s)


@pytest.mark.usefixtures("test_camera")
def test_one_that_ends_is_lost_and_leaves_no_process() -> None:
    source = open_source("csi://1?width=64&height=48&rate=30", parse_options(QUICK))
    process = source._source._process  # type: ignore[attr-defined]
    with source, pytest.raises(SourceLost, match="csi://1 ended"):
        assert len(list(source)) == 40
    assert process.returncode is not None


def test_one_that_is_not_there_says_what_gstreamer_says(monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("gst-launch-1.0") is None:
        pytest.skip("needs Debian's packages gstreamer1.0-tools and gstreamer1.0-plugins-base")
    monkeypatch.setattr(gstreamer, "_camera_elements", lambda *_: ["filesrc", "location=/nowhere"])
    with pytest.raises(InputError, match=r"csi://0 ended: ERROR.*"):
        open_source("csi://0", parse_options(QUICK))


@pytest.fixture
def stalling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[gstreamer.PipeSource]:
    """What prints something, delivers two pictures of 4×4, and then nothing."""
    stand_in = tmp_path / "gst-launch-1.0"
    stand_in.write_text(
        f"#!{sys.executable}\nimport os, sys, time\n"
        "print('GST_ARGUS: Creating output stream', flush=True)\n"
        "(fd,) = (int(word[3:]) for word in sys.argv if word.startswith('fd='))\n"
        "os.write(fd, bytes(range(48)) * 2)\n"
        "time.sleep(60)\n"
    )
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with gstreamer.PipeSource([], parse_options("width=4,height=4,open_timeout=20,read_timeout=50"), name="csi://0") as source:
        yield source


def test_what_an_element_prints_is_no_part_of_a_picture(stalling: gstreamer.PipeSource) -> None:
    for _, frame in zip(range(2), stalling, strict=False):
        assert frame.image.tobytes() == bytes(range(48))


def test_leaving_one_that_stalls_leaves_no_process(stalling: gstreamer.PipeSource) -> None:
    for _ in stream_results(stalling, lambda frame: Result(np.zeros((2, 2), np.float32), (4, 4), frame=frame)):
        break
    assert stalling._process.returncode is not None


def test_without_gstreamer_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendError) as caught:
        open_source("csi://0")
    assert "apt install gstreamer1.0-tools" in caught.value.hint


# --- nobody but us writes a pipeline

JETSON = re.compile(
    r"nvarguscamerasrc sensor-id=\d+ ! video/x-raw\(memory:NVMM\),format=NV12,width=\d+,height=\d+,framerate=\d+/\d+ ! nvvidconv "
    r"! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! queue leaky=downstream max-size-buffers=1"
)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Collect the pipelines that would be started on a Jetson."""
    pipelines: list[list[str]] = []

    class Unstarted:
        def __init__(self, elements: list[str], *_: Any, **__: Any) -> None:
            pipelines.append(elements)
            raise InputError("not started")

    monkeypatch.setattr(gstreamer, "PipeSource", Unstarted)
    monkeypatch.setattr(gstreamer, "_is_installed", lambda _: True)
    return pipelines


INJECTIONS = (
    " ! filesink location=/tmp/x",
    "!fakesink",
    "\n! fakesink",
    "%20!%20fakesink",
    ",format=RGB",
    "(memory:NVMM)",
    " num-buffers=1",
    "0x10",
    "１",  # a digit, and not one of ours
    "1_0",
    "-1",
    "1e3",
    "nan",
    "",
)


def test_text_never_becomes_an_element(started: list[list[str]]) -> None:
    rng = random.Random(0)
    noise = ["".join(rng.choices(string.printable, k=rng.randrange(1, 12))) for _ in range(300)]
    for text in [*INJECTIONS, *noise]:
        for uri in (
            f"csi://{text}",
            f"csi://0{text}",
            f"csi://0?width={text}",
            f"csi://0?width=640{text}",
            f"csi://0?rate=30{text}",
            f"csi://0?format={text}",
            f"csi://0?{text}",
            f"csi://0?flip={text}",
        ):
            with pytest.raises(EdgesodError):
                open_source(uri)
    assert started, "not one was let through, so nothing was tested"
    for elements in started:
        assert JETSON.fullmatch(" ".join(elements)), elements


@pytest.mark.parametrize("text", INJECTIONS[:7])
def test_injections_are_refused_by_name(started: list[list[str]], text: str) -> None:
    for uri in (f"csi://0{text}", f"csi://0?width=640{text}", f"csi://0?rate=30{text}", f"csi://0?format=mjpeg{text}"):
        with pytest.raises(UsageError):
            open_source(uri)
    assert started == []


def test_fractions_are_whole_numbers(started: list[list[str]]) -> None:
    for rate, expected in (("29.97", "2997/100"), ("30", "30/1"), ("59.94", "2997/50"), ("0.5", "1/2")):
        with pytest.raises(InputError):
            open_source(f"csi://1?width=640&height=480&rate={rate}")
        assert started[-1][:4] == [
            "nvarguscamerasrc",
            "sensor-id=1",
            "!",
            f"video/x-raw(memory:NVMM),format=NV12,width=640,height=480,framerate={expected}",
        ]
