"""What a person may say about a source, turning and cutting it, and that none of it is passed over in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgesod.errors import InputError, UsageError
from edgesod.stream import open_source
from edgesod.stream.sources.options import SourceOptions, parse_options
from tests.helpers.video import pictures, stamp_of, write_clip

NONSENSE = """
width width= =3 width=0 width=3.5 width=1e9 width=640!filesink width=640,width=640 rate=nan rate=-1 rate=0 rotate=45 flip=both
loop=-2 start=-1 start=2,end=1 start_s=3 end=inf reconnect=nan reconnect=-1 read_timeout=0 format=h265 speed=2
"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", pictures(60), keyframe_every=20)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("flip=horizontal,rotate=90,loop=3", {"flip": "horizontal", "rotate": 90, "loop": 3}),
        (" start=1.5, end=2 ", {"start_s": 1.5, "end_s": 2.0}),
        ("reconnect=inf,retry=0.1", {"reconnect_s": float("inf"), "retry_s": 0.1}),
        ("width=640,height=480,rate=29.97,format=mjpeg", {"width": 640, "height": 480, "rate": 29.97, "format": "mjpeg"}),
    ],
)
def test_options_are_read(text: str, expected: dict[str, Any]) -> None:
    assert parse_options(text).model_dump(exclude_unset=True) == expected


@pytest.mark.parametrize(
    "text",
    NONSENSE.split(),
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_options(text)
    assert caught.value.hint


def test_what_is_close_to_an_option_is_named() -> None:
    with pytest.raises(UsageError) as caught:
        parse_options("heigth=3")
    assert caught.value.hint == "did you mean height?"


@pytest.mark.parametrize("said", ["width=640", "rate=5", "transport=udp", "reconnect=3"])
def test_a_file_takes_no_cameras_options(clip: Path, said: str) -> None:
    with pytest.raises(UsageError, match=f"does not take {said.partition('=')[0]}"):
        open_source(clip, parse_options(said))


def test_what_a_query_says_comes_before_the_options(clip: Path) -> None:
    with open_source(f"file://{clip}?start=1", parse_options("start=2,end=2.2")) as source:
        assert [stamp_of(frame.image) for frame in source] == list(range(25, 55))


# --- turning


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", ["none", "horizontal", "vertical"])
def test_pictures_are_rotated_clockwise_then_mirrored(tmp_path: Path, rotate: int, flip: str) -> None:
    image = pictures(1)[0]
    cv2.imwrite(str(tmp_path / "a.png"), image)
    expected = np.rot90(image, -rotate // 90)
    expected = {"none": expected, "horizontal": expected[:, ::-1], "vertical": expected[::-1]}[flip]
    with open_source(tmp_path / "a.png", parse_options(f"rotate={rotate},flip={flip}")) as source:
        (frame,) = source
    np.testing.assert_array_equal(frame.image, expected)
    assert frame.image.flags["C_CONTIGUOUS"]


def test_a_turned_video_says_its_turned_size(clip: Path) -> None:
    with open_source(clip, parse_options("rotate=270")) as source:
        assert (source.size_hw, source.num_frames, source.fps) == ((128, 72), 60, 25)
        assert {frame.image.shape for frame in source} == {(128, 72, 3)}


# --- cutting and looping


@pytest.mark.parametrize(
    ("start_s", "end_s", "expected"),
    [(0, None, range(60)), (1, None, range(25, 60)), (0.5, 1.5, range(13, 38)), (0, 0.2, range(5)), (2.36, 9, range(59, 60))],
)
def test_a_part_of_a_clip(clip: Path, start_s: float, end_s: float | None, expected: range) -> None:
    with open_source(clip, SourceOptions(start_s=start_s, end_s=end_s)) as source:
        assert source.num_frames == len(expected)
        frames = list(source)
    assert [stamp_of(frame.image) for frame in frames] == list(expected)
    assert [frame.time_s for frame in frames] == pytest.approx([k / 25 for k in range(len(expected))], abs=1e-4)


def test_a_part_that_is_not_there_is_refused(clip: Path) -> None:
    with pytest.raises(InputError, match="no frame that can be decoded from second 5 on"):
        open_source(clip, SourceOptions(start_s=5))


def test_a_clip_is_played_again_and_its_times_go_on(clip: Path) -> None:
    with open_source(f"file://{clip}?loop=2&end=0.2") as source:
        assert source.num_frames == 15
        frames = list(source)
    assert [stamp_of(frame.image) for frame in frames] == [0, 1, 2, 3, 4] * 3
    assert [frame.index for frame in frames] == list(range(15))
    assert [frame.time_s for frame in frames] == pytest.approx([k / 25 for k in range(15)], abs=1e-4)


def test_without_end_it_never_ends_until_it_is_closed(clip: Path) -> None:
    with open_source(clip, parse_options("loop=-1,end=0.08")) as source:
        assert source.num_frames is None
        seen = []
        for frame in source:
            seen.append(stamp_of(frame.image))
            if len(seen) == 21:
                source.close()
        assert seen == ([0, 1] * 20)[: len(seen)]
        assert 21 <= len(seen) <= 22


def test_pictures_have_times_where_a_rate_is_given(tmp_path: Path) -> None:
    for k, image in enumerate(pictures(3)):
        cv2.imwrite(str(tmp_path / f"img_{k:04d}.png"), image)
    with open_source(f"file://{tmp_path}/img_%04d.png?rate=10&loop=1") as source:
        assert (source.fps, source.num_frames) == (10, 6)
        assert [frame.time_s for frame in source] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
