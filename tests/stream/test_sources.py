"""Sources: what every kind yields, and what a person is told when it cannot."""

from __future__ import annotations

import logging
import socket
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgesod.errors import EdgesodError, InputError, SourceLost, UsageError
from edgesod.stream import open_sink, open_source
from edgesod.stream.sources import camera
from edgesod.stream.sources.options import SourceOptions
from edgesod.stream.uri import redacted
from edgesod.types import Frame
from tests.helpers.video import FakeCapture, gather, pictures, presentation_times, shared_clip, stamp_of, write_clip

SECRET = "pa/ss@w?rd"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", pictures(60))


def stamps(frames: Iterable[Frame]) -> list[int]:
    return [stamp_of(frame.image) for frame in frames]


# --- videos


def test_a_video_yields_every_frame_in_order(clip: Path) -> None:
    with open_source(clip) as source:
        assert (source.fps, source.num_frames, source.size_hw, source.is_live) == (25, 60, (72, 128), False)
        frames = list(source)
    assert [stamp_of(frame.image) for frame in frames] == list(range(60))
    assert [frame.index for frame in frames] == list(range(60))
    assert all(frame.image.dtype == np.uint8 and frame.image.shape == (72, 128, 3) for frame in frames)
    ages = np.diff([frame.captured_at_s for frame in frames])
    assert (ages > 0).all()


def test_colours_are_those_that_were_written(clip: Path) -> None:
    with open_source(str(clip)) as source:
        for frame, image in zip(source, pictures(60), strict=True):
            assert np.abs(frame.image.astype(int) - image).mean() < 6


def test_a_variable_frame_rate_is_kept(tmp_path: Path) -> None:
    times_s = [0, 0.04, 0.05, 0.3, 0.31, 1.0, 1.5, 1.51]
    with open_source(write_clip(tmp_path / "v.mp4", pictures(8), times_s=times_s)) as source:
        assert [frame.time_s for frame in source] == pytest.approx(times_s, abs=1 / 90_000)


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_a_display_matrix_is_applied_as_opencv_does(tmp_path: Path, rotation: int) -> None:
    path = write_clip(tmp_path / "r.mp4", pictures(3), rotation=rotation)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    _, reference = capture.read()
    capture.release()
    with open_source(path) as source:
        image = next(iter(source)).image
        assert source.size_hw == image.shape[:2] == reference.shape[:2]
    assert np.abs(image.astype(int) - reference).mean() < 5


def test_a_cut_off_video_yields_the_whole_frames_and_then_says_where_it_ends(clip: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size * 2 // 3])
    whole = [frame.image for frame in open_source(clip)]
    frames: list[Frame] = []
    with open_source(cut) as source, pytest.raises(InputError, match=r"damaged: (\d+) of 60 frames") as caught:
        gather(source, frames)
    assert 10 < len(frames) < 60
    assert f"damaged: {len(frames)} of" in str(caught.value)
    assert caught.value.hint == f"--max-frames {len(frames)} keeps those"
    assert [frame.time_s for frame in frames] == pytest.approx([k / 25 for k in range(len(frames))])
    for frame, reference in zip(frames, whole, strict=False):
        np.testing.assert_array_equal(frame.image, reference)


def test_a_hole_in_a_video_ends_it_with_an_error(clip: Path, tmp_path: Path) -> None:
    content = bytearray(clip.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8000] = bytes(8000)
    broken = tmp_path / "hole.mp4"
    broken.write_bytes(content)
    frames: list[Frame] = []
    with open_source(broken) as source, pytest.raises(InputError, match="damaged"):
        gather(source, frames)
    assert stamps(frames) == list(range(len(frames)))
    assert len(frames) > 10


@pytest.mark.parametrize("content", [b"", b"hello" * 100, b"\x00\x00\x00\x20ftypisom" + bytes(500)])
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "no.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"no\.mp4"):
        open_source(path)


@pytest.mark.parametrize("num_bytes", [30, 400, 1000])
def test_a_video_cut_off_within_its_index_is_refused(clip: Path, tmp_path: Path, num_bytes: int) -> None:
    path = tmp_path / "cut.mp4"
    path.write_bytes(clip.read_bytes()[:num_bytes])
    with pytest.raises(InputError, match=r"cut\.mp4"):
        open_source(path)


def test_closing_early_and_twice_is_fine(clip: Path) -> None:
    source = open_source(clip)
    next(iter(source))
    source.close()
    source.close()


def test_a_real_clip_is_read_whole() -> None:
    path = shared_clip("libby_854x480.mp4")
    with open_source(path) as source:
        frames = list(source)
        assert len(frames) == source.num_frames
    times_s = presentation_times(path)
    assert [frame.time_s for frame in frames] == pytest.approx([t - times_s[0] for t in times_s])


# --- pictures


def test_a_picture_is_bgr_whatever_it_was(tmp_path: Path) -> None:
    bgr = pictures(1)[0]
    grey = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    for name, image, expected in (
        ("bgr.png", bgr, bgr),
        ("grey.png", grey, cv2.merge([grey] * 3)),
        ("bgra.png", cv2.cvtColor(bgr, cv2.COLOR_BGR2BGRA), bgr),
        ("deep.png", bgr.astype(np.uint16) * 257, bgr),
        ("grün.webp", bgr, None),
    ):
        (tmp_path / name).write_bytes(cv2.imencode(Path(name).suffix, image)[1].tobytes())
        with open_source(tmp_path / name) as source:
            (frame,) = source
        assert (frame.image.dtype, frame.image.shape, frame.name, frame.time_s) == (np.uint8, bgr.shape, name, 0)
        if expected is not None:
            np.testing.assert_array_equal(frame.image, expected)


@pytest.mark.parametrize("deep", [False, True])
def test_exif_orientation_is_honoured(tmp_path: Path, deep: bool) -> None:
    pil = pytest.importorskip("PIL.Image")
    path = tmp_path / ("turned.png" if deep else "turned.jpg")
    picture = pil.fromarray(pictures(1)[0][..., 0].astype(np.uint16) * 257 if deep else pictures(1)[0])
    exif = pil.Exif()
    exif[0x112] = 6
    picture.save(path, exif=exif)
    (frame,) = open_source(path)
    assert frame.image.shape == (128, 72, 3)


def test_a_very_wide_picture_is_read(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "wide.png"), np.full((3, 20_000, 3), 7, np.uint8))
    (frame,) = open_source(tmp_path / "wide.png")
    assert frame.image.shape == (3, 20_000, 3)


def test_a_folder_is_read_sorted_and_leaves_other_files_out(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c.bmp"):
        (tmp_path / name).write_bytes(cv2.imencode(Path(name).suffix.lower(), pictures(1)[0])[1].tobytes())
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "inner.png").mkdir()
    with open_source(f"file://{tmp_path}") as source:
        assert source.num_frames == 3
        assert [frame.name for frame in source] == ["a.JPG", "b.png", "c.bmp"]


@pytest.mark.parametrize("content", [b"", b"no picture", cv2.imencode(".png", pictures(1)[0])[1].tobytes()[:300]])
def test_a_broken_picture_is_named(tmp_path: Path, content: bytes) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), pictures(1)[0])
    (tmp_path / "b.png").write_bytes(content)
    frames: list[Frame] = []
    with open_source(tmp_path) as source, pytest.raises(InputError, match=r"b\.png cannot be decoded"):
        gather(source, frames)
    assert [frame.name for frame in frames] == ["a.png"]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no picture"):
        open_source(tmp_path)


@pytest.mark.parametrize("pattern", ["img_%04d.png", "img_%04i.png"])
def test_a_sequence_is_read_by_number(tmp_path: Path, pattern: str) -> None:
    for number in (2, 10, 9, 12345):
        cv2.imwrite(str(tmp_path / f"img_{number:04d}.png"), pictures(1)[0])
    cv2.imwrite(str(tmp_path / "img_7.png"), pictures(1)[0])
    with open_source(tmp_path / pattern) as source:
        assert [frame.name for frame in source] == [f"img_{number:04d}.png" for number in (2, 9, 10, 12345)]
    with pytest.raises(InputError, match="no file matches"):
        open_source(tmp_path / "other_%d.png")


# --- names


def test_a_plain_path_takes_options_too(clip: Path, tmp_path: Path) -> None:
    with open_source(f"{clip}?start=2&loop=1") as source:
        assert stamps(source) == [*range(50, 60)] * 2
    odd = clip.rename(tmp_path / "odd?loop=1")  # a file of that very name comes first
    with open_source(str(odd)) as source:
        assert stamps(source) == [*range(60)]
    with pytest.raises(InputError, match="does not exist"):
        open_source(str(tmp_path / "what?.mp4"))


def test_a_missing_path_names_its_neighbours(clip: Path) -> None:
    with pytest.raises(InputError, match="does not exist") as caught:
        open_source(clip.with_name("clipp.mp4"))
    assert str(clip) in caught.value.hint
    with pytest.raises(InputError) as caught:
        open_source(clip.parent / "no" / "such" / "place.mp4")
    assert "clip.mp4" in caught.value.hint


@pytest.mark.parametrize("uri", ["display://0", "ftp://host/x.mp4", ""])
def test_an_unknown_scheme_lists_the_grammar(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_source(uri)
    assert "rtsp://" in caught.value.hint
    assert "img_%04d.png" in caught.value.hint


@pytest.mark.parametrize(
    ("uri", "printed"),
    [
        (f"rtsp://me:{SECRET}@cam/1", "rtsp://***@cam/1"),
        ("http://cam/video?token=secret", "http://cam/video?…"),
        ("rtsp://cam:554/1", "rtsp://cam:554/1"),
        ("rtsp://cam:554/user=admin_password=x_channel=1.sdp?real", "rtsp://cam:554/***"),
        ("http://cam/TOKEN:x/monkey=1/live#secret", "http://cam/***/monkey=1/live?…"),
        (f"rtsp:/me:{SECRET}@cam/1", "rtsp:/***@cam/1"),
        (f"rtsp:me:{SECRET}@cam/1", "rtsp:***@cam/1"),
        ("a@b?c.mp4", "a@b?c.mp4"),
    ],
)
def test_printable_names_hold_no_credentials(uri: str, printed: str) -> None:
    assert redacted(uri) == printed


@pytest.mark.parametrize("opening", [open_source, open_sink])
@pytest.mark.parametrize("uri", [f"rtsp:/me:{SECRET}@cam/1", f"HTTP:me:{SECRET}@cam/1", f"ftp:/me:{SECRET}@cam/1.x"])
def test_a_missing_slash_brings_no_password_to_light(
    opening: Callable[[str], object], uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EdgesodError) as caught:
        opening(uri)
    assert "ss@w" not in f"{caught.value}{caught.value.hint}"
    assert not list(tmp_path.iterdir())


# --- network


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_a_video_behind_http_is_read_and_its_password_shown_nowhere(
    clip: Path, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret, url = "hushhush", f"http://me:hushhush@{server}"
    with open_source(f"{url}/{clip.name}") as source:
        assert not source.is_live
        assert stamps(source) == list(range(60))
        assert secret not in source.name
    with pytest.raises(InputError, match="cannot be opened") as caught:
        open_source(f"{url}/none.mp4?token={secret}")
    assert secret not in "".join(traceback.format_exception(caught.value)) + caught.value.hint + caplog.text
    assert caught.value.__context__ is None


def test_a_stream_that_ends_is_lost() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=f\r\n\r\n")
                for image in pictures(30):
                    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
                    connection.sendall(b"--f\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg) + jpeg)
                    connection.sendall(b"\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        frames: list[Frame] = []
        with open_source(f"http://127.0.0.1:{listener.getsockname()[1]}/live", SourceOptions(reconnect_s=0)) as source:
            assert source.is_live
            with pytest.raises(SourceLost, match="went away"):
                gather(source, frames)
        thread.join()
    assert stamps(frames) == list(range(len(frames)))
    assert len(frames) >= 25


def test_a_server_that_says_nothing_is_given_up() -> None:
    from edgesod.stream.sources.video import VideoSource

    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(InputError, match="not answer in time"):
            VideoSource(f"rtsp://127.0.0.1:{listener.getsockname()[1]}/1", SourceOptions(open_timeout_s=0.3))


# --- cameras


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeCapture], FakeCapture]:
    def use(capture: FakeCapture) -> FakeCapture:
        monkeypatch.setattr(camera.cv2, "VideoCapture", lambda *_: capture)
        return capture

    monkeypatch.setattr(camera, "_PAUSE_S", 0.0)
    return use


@pytest.mark.parametrize("uri", ["0", "camera:0", "v4l2:///dev/video0", "/dev/video0"])
def test_a_camera_yields_frames_and_is_lost_when_it_stops(plug: Callable[[FakeCapture], FakeCapture], uri: str) -> None:
    capture = plug(FakeCapture(5))
    frames: list[Frame] = []
    with open_source(uri, SourceOptions(reconnect_s=0)) as source:
        assert (source.name, source.is_live, source.fps, source.size_hw) == ("camera 0", True, 30, (72, 128))
        with pytest.raises(SourceLost, match="after 5 frames"):
            gather(source, frames)
    assert stamps(frames) == [frame.index for frame in frames] == list(range(5))
    source.close()
    assert capture.num_released == 1


def test_an_absent_camera_is_an_input_error(plug: Callable[[FakeCapture], FakeCapture]) -> None:
    capture = plug(FakeCapture(is_open=False))
    with pytest.raises(InputError, match="camera 3 cannot be opened") as caught:
        open_source("3")
    assert "camera" in caught.value.hint or "/dev/video" in caught.value.hint
    assert capture.num_released == 1


def test_a_path_that_is_no_camera_is_refused() -> None:
    with pytest.raises(InputError, match="not a video device"):
        open_source("v4l2:///dev/null")
