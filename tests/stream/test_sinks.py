"""Sinks: what is in the file afterwards, read back with PyAV and OpenCV, and what is there when writing fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from edgesod.errors import BackendError, OutputError, UsageError
from edgesod.stream import open_sink, open_source
from edgesod.stream.sinks.pipe import PipeSink
from edgesod.types import Frame, Result
from tests.helpers.video import pictures, presentation_times, shared_clip, stamp_of


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


# --- videos


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_video_holds_every_picture_in_order(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"out{suffix}"
    with open_sink(str(path), fps=30) as sink:
        for k, image in enumerate(pictures(40)):
            sink.write(image, Frame(image, k, k / 30))
        assert not path.exists()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert [stamp_of(frame.to_ndarray(format="bgr24")) for frame in container.decode(stream)] == list(range(40))
    assert presentation_times(path) == pytest.approx([k / 30 for k in range(40)], abs=0.001)
    assert names(path.parent) == [path.name]


def test_colours_survive(tmp_path: Path) -> None:
    image = np.zeros((64, 192, 3), np.uint8)
    image[:, :64], image[:, 64:128], image[:, 128:] = (200, 30, 30), (30, 200, 30), (30, 30, 200)
    with open_sink(str(tmp_path / "c.mp4"), fps=25) as sink:
        sink.write(image, Frame(image))
    capture = cv2.VideoCapture(str(tmp_path / "c.mp4"), cv2.CAP_FFMPEG)
    _, seen = capture.read()
    capture.release()
    (frame,) = open_source(tmp_path / "c.mp4")
    for x in (32, 96, 160):
        assert np.abs(frame.image[32, x].astype(int) - image[32, x]).max() < 8
        assert np.abs(seen[32, x].astype(int) - image[32, x]).max() < 8


def test_a_variable_frame_rate_is_kept_and_the_last_frame_is_within_the_length(tmp_path: Path) -> None:
    times_s = [0, 0.04, 0.05, 0.3, 0.31, 1.0, 1.5, 1.51]
    path = tmp_path / "v.mp4"
    with open_sink(str(path), fps=25) as sink:
        for image, time_s in zip(pictures(8), times_s, strict=True):
            sink.write(image, Frame(image, time_s=time_s))
    assert presentation_times(path) == pytest.approx(times_s, abs=1 / 90_000)
    with av.open(str(path)) as container:
        assert container.duration is not None
        assert container.duration / av.time_base >= 1.51


def test_pictures_without_times_are_paced_by_fps(tmp_path: Path) -> None:
    with open_sink(str(tmp_path / "v.mp4"), fps=10) as sink:
        for image in pictures(4):
            sink.write(image, Frame(image))
    assert presentation_times(tmp_path / "v.mp4") == pytest.approx([0, 0.1, 0.2, 0.3], abs=1 / 90_000)


@pytest.mark.parametrize(("size_hw", "even_hw"), [((71, 129), (72, 130)), ((1, 1), (2, 2)), ((72, 127), (72, 128))])
def test_odd_sizes_are_made_even(tmp_path: Path, size_hw: tuple[int, int], even_hw: tuple[int, int]) -> None:
    image = cv2.resize(pictures(1)[0], size_hw[::-1], interpolation=cv2.INTER_AREA)
    with open_sink(str(tmp_path / "v.mp4"), fps=25) as sink:
        sink.write(image, Frame(image))
    (frame,) = open_source(tmp_path / "v.mp4")
    assert frame.image.shape[:2] == even_hw
    assert np.abs(frame.image[: size_hw[0], : size_hw[1]].astype(int) - image).mean() < 10


def test_a_picture_of_another_size_is_fitted_in(tmp_path: Path) -> None:
    first, second = pictures(1)[0], np.full((200, 100, 3), 255, np.uint8)
    with open_sink(str(tmp_path / "v.mp4"), fps=25) as sink:
        sink.write(first, Frame(first))
        sink.write(second, Frame(second))
    _, fitted = (frame.image for frame in open_source(tmp_path / "v.mp4"))
    assert fitted.shape == (72, 128, 3)
    assert fitted[36, 64].min() > 240
    assert fitted[:, :32].max() < 40


def test_transparency_is_laid_on_a_background_and_grey_is_taken(tmp_path: Path) -> None:
    bgra = np.zeros((32, 32, 4), np.uint8)
    bgra[:, 16:] = (0, 0, 255, 255)
    with open_sink(str(tmp_path / "v.mp4"), fps=25) as sink:
        sink.write(bgra, Frame(bgra))
        sink.write(np.full((32, 32), 128, np.uint8), Frame(bgra))
    first, second = (frame.image for frame in open_source(tmp_path / "v.mp4"))
    assert first[16, 4].min() > 240
    assert np.abs(first[16, 28].astype(int) - (0, 0, 255)).max() < 20
    assert np.abs(second.astype(int) - 128).max() < 8


def test_a_video_too_large_for_h264_says_so(tmp_path: Path) -> None:
    image = np.zeros((2, 20_000, 3), np.uint8)
    sink = open_sink(str(tmp_path / "v.mp4"), fps=25)
    with pytest.raises(OutputError, match="16384"):
        sink.write(image, Frame(image))
    sink.close()
    assert names(tmp_path) == []


def test_without_a_picture_or_after_abort_nothing_is_left(tmp_path: Path) -> None:
    image = pictures(1)[0]
    kept = tmp_path / "v.mp4"
    kept.write_bytes(b"an older result")
    open_sink(str(kept), fps=25).close()
    sink = open_sink(str(kept), fps=25)
    sink.write(image, Frame(image))
    sink.abort()
    sink.close()
    sink.abort()
    assert names(tmp_path) == ["v.mp4"]
    assert kept.read_bytes() == b"an older result"
    with pytest.raises(OutputError, match="closed"):
        sink.write(image, Frame(image))


def test_a_real_clip_goes_through_whole(tmp_path: Path) -> None:
    path = shared_clip("blackswan_854x480.mp4")
    with open_source(path) as source, open_sink(str(tmp_path / "v.mp4"), fps=source.fps) as sink:
        for frame in source:
            sink.write(frame.image, frame)
    begun_s = presentation_times(path)[0]
    expected = [time_s - begun_s for time_s in presentation_times(path)]
    assert presentation_times(tmp_path / "v.mp4") == pytest.approx(expected, abs=1 / 90_000)


# --- pictures


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff"])
def test_a_picture_keeps_its_transparency(tmp_path: Path, suffix: str) -> None:
    bgra = cv2.cvtColor(pictures(1)[0], cv2.COLOR_BGR2BGRA)
    bgra[:, :50, 3] = 0
    with open_sink(str(tmp_path / f"o{suffix}")) as sink:
        sink.write(bgra, Frame(bgra))
    seen = cv2.imread(str(tmp_path / f"o{suffix}"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(seen[..., 3], bgra[..., 3])
    with open_sink(str(tmp_path / "o.jpg")) as sink:
        sink.write(bgra, Frame(bgra))
    assert cv2.imread(str(tmp_path / "o.jpg"), cv2.IMREAD_UNCHANGED)[40, 10].min() > 240


def test_a_picture_file_takes_one_picture(tmp_path: Path) -> None:
    image = pictures(1)[0]
    with open_sink(str(tmp_path / "o.png")) as sink:
        sink.write(image, Frame(image))
        with pytest.raises(OutputError, match="one picture") as caught:
            sink.write(image, Frame(image))
    assert "o_%04d.png" in caught.value.hint
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "o.png")), image)


def test_a_folder_names_pictures_after_their_frames_and_overwrites_none(tmp_path: Path) -> None:
    image = pictures(1)[0]
    with open_sink(str(tmp_path / "out")) as sink:
        for index, name in enumerate(("cat.jpg", "cat.png", "dog.PNG", "clip.mp4", "rtsp://cam/1")):
            sink.write(image, Frame(image, index, name=name))
    assert names(tmp_path / "out") == ["000003.png", "000004.png", "cat.png", "cat.png.png", "dog.png"]


def test_a_sequence_is_numbered(tmp_path: Path) -> None:
    image = pictures(1)[0]
    with open_sink(f"file://{tmp_path}/o_%03d.jpg") as sink:
        for index in (4, 9):
            sink.write(image, Frame(image, index))
    assert names(tmp_path) == ["o_000.jpg", "o_001.jpg"]


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8)])
def test_what_is_no_picture_is_refused(image: np.ndarray, tmp_path: Path) -> None:
    for target in ("null", str(tmp_path / "o.png"), str(tmp_path / "o.mp4")):
        with open_sink(target) as sink, pytest.raises(ValueError, match="uint8"):
            sink.write(image, Frame(image))
    assert names(tmp_path) == []


# --- what is no file


def test_raw_pictures_go_out_byte_by_byte(tmp_path: Path) -> None:
    images = pictures(3)
    with open(tmp_path / "raw", "wb") as file:
        sink = PipeSink(file.fileno())
        for image in images:
            sink.write(image, Frame(image))
        with pytest.raises(OutputError, match="began with"):
            sink.write(images[0][:10], Frame(images[0]))
    np.testing.assert_array_equal(np.fromfile(tmp_path / "raw", np.uint8).reshape(3, *images[0].shape), images)


def test_a_pipe_whose_reader_has_gone_says_so() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    image = pictures(1)[0]
    try:
        with pytest.raises(OutputError, match="the pipe is gone"):
            PipeSink(writing).write(image, Frame(image))
    finally:
        os.close(writing)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a screen cannot be taken away like this")
def test_a_window_without_a_screen_is_refused_and_names_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BackendError, match="no screen") as caught:
        open_sink("display://0")
    assert "--web" in caught.value.hint


def test_a_recording_of_what_does_not_come_again_can_be_played_before_it_is_finished(tmp_path: Path) -> None:
    with open_sink(tmp_path / "o.mp4", fps=10, is_live=True) as sink:
        for k, image in enumerate(pictures(60)):
            sink.write(image, Frame(image, k, k / 10))
        (begun,) = tmp_path.glob(".o-*.mp4")
        copy = tmp_path / "copy.mp4"
        copy.write_bytes(begun.read_bytes())
    assert len(presentation_times(copy)) >= 20
    assert [stamp_of(frame.image) for frame in open_source(tmp_path / "o.mp4")] == list(range(60))


# --- names and places


@pytest.mark.parametrize("target", ["out.gif", "rtsps://me:secret@cam/1", "webrtc://0", "display://wall", "null://x", ""])
def test_an_unknown_target_lists_the_grammar(target: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_sink(target)
    assert "out.mp4" in caught.value.hint
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["v.mp4", "o.png", "o_%d.png", "out"])
def test_a_place_that_cannot_be_is_refused_before_anything_runs(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        open_sink(str(tmp_path / "file" / name))


_FILL = """
import resource, sys
import numpy as np
from edgesod.errors import OutputError
from edgesod.stream import open_sink
from edgesod.types import Frame

resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
sink = open_sink(sys.argv[1], fps=25)
try:
    for k in range(12):
        sink.write(np.roll(image, k, 0), Frame(image, k, k / 25))
    sink.close()
except OutputError as error:
    sink.close()
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file size")
@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "o_%d.png"])
def test_a_full_disk_is_an_output_error_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-c", _FILL, str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "File too large" in done.stdout
    assert names(tmp_path) == []


# --- lines


def result_at(x: int, y: int) -> Result:
    """Return a result whose subject is 4×2 pixels from ``(x, y)`` on, in a picture of 32×16; none at -1."""
    saliency = np.zeros((16, 32), np.float32)
    if x >= 0:
        saliency[y : y + 2, x : x + 4] = 1
    return Result(saliency, (16, 32))


@pytest.mark.parametrize("is_live", [False, True])
def test_lines_say_where_the_subject_is(tmp_path: Path, is_live: bool) -> None:
    path = tmp_path / "new" / "out.jsonl"
    image = np.zeros((16, 32, 3), np.uint8)
    with open_sink(path, is_live=is_live) as sink:
        assert not sink.wants_picture
        for k, (at, name) in enumerate((((3, 5), "ü.png"), ((-1, -1), "\udcfc.png"))):  # the second name is no UTF-8
            sink.write(image, Frame(image, k, k / 30, name, time.perf_counter() - 1, source=k), result_at(*at))
            assert (len(path.read_text("utf-8").splitlines()) if path.exists() else 0) == (k + 1 if is_live else 0)
    first, second = map(json.loads, path.read_text("utf-8").splitlines())
    assert (first["box"], first["centroid"], first["size"]) == ([3, 5, 4, 2], [4.5, 5.5], [32, 16])
    assert (first["source"], first["index"], first["name"], first["time_s"]) == (0, 0, "ü.png", 0)
    assert first["unix_s"] == pytest.approx(time.time() - 1, abs=60)
    assert (second["box"], second["centroid"], second["index"], second["source"]) == (None, None, 1, 1)
    assert second["name"] == "\udcfc.png"


@pytest.mark.parametrize("is_live", [False, True])
def test_of_lines_that_were_given_up_a_live_source_keeps_its_own(tmp_path: Path, is_live: bool) -> None:
    image = np.zeros((16, 32, 3), np.uint8)
    sink = open_sink(tmp_path / "out.jsonl", is_live=is_live)
    sink.write(image, Frame(image, 0), result_at(0, 0))
    sink.abort()
    sink.close()
    assert names(tmp_path) == (["out.jsonl"] if is_live else [])
    with pytest.raises(OutputError, match="cannot write"):
        open_sink("/proc/nowhere/out.jsonl", is_live=is_live)


def test_a_full_disk_is_an_error_of_the_lines(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    (tmp_path / "out.jsonl").symlink_to("/dev/full")
    image = np.zeros((16, 32, 3), np.uint8)
    sink = open_sink(tmp_path / "out.jsonl", is_live=True)
    with pytest.raises(OutputError, match="No space"):
        sink.write(image, Frame(image, 0), result_at(0, 0))
    sink.close()
