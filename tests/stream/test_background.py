"""A background is a picture, or a video that keeps pace with the frames it is put behind and begins again."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgesod.errors import InputError
from edgesod.processing.look import Look
from edgesod.stream import open_sink
from edgesod.stream.background import VideoBackground, open_background
from edgesod.types import Frame, Result

NUM_FRAMES, FPS = 8, 10


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip whose grey level tells the number of the frame."""
    path = tmp_path_factory.mktemp("background") / "behind.mp4"
    with open_sink(str(path), fps=FPS) as sink:
        for k in range(NUM_FRAMES):
            image = np.full((48, 64, 3), 20 + 25 * k, np.uint8)
            sink.write(image, Frame(image, index=k, time_s=k / FPS))
    return path


def _number(picture: np.ndarray) -> int:
    return round((float(picture.mean()) - 20) / 25)


def _frame(time_s: float, source: int = 0) -> Frame:
    return Frame(np.zeros((30, 40, 3), np.uint8), time_s=time_s, source=source)


def test_plays_at_its_own_pace_and_again(video: Path) -> None:
    background = VideoBackground(video)
    try:
        slow = [_number(background(_frame(100 + k * 0.2))) for k in range(8)]  # begins with the first frame it is put behind
        assert slow == [0, 2, 4, 6, 0, 2, 4, 6]
        fast = [_number(background(_frame(101.4 + k * 0.05))) for k in range(1, 7)]
        assert fast == [6, 7, 7, 0, 0, 1]
    finally:
        background.close()


def test_a_pause_and_a_step_back_do_not_stall_it(video: Path) -> None:
    background = VideoBackground(video)
    try:
        assert _number(background(_frame(0))) == 0
        after_pause = _number(background(_frame(3600)))
        for time_s in (3600.1, 5.0):
            before, after_pause = after_pause, _number(background(_frame(time_s)))
            assert (after_pause - before) % NUM_FRAMES <= 1
    finally:
        background.close()


def test_each_of_several_sources_has_its_own_pace(video: Path) -> None:
    background = VideoBackground(video)
    try:
        seen = [
            [_number(background(_frame(start_s + k * 0.1, source))) for source, start_s in ((0, 50), (1, 0))] for k in range(7)
        ]
        assert seen == [[k, k] for k in range(7)]
    finally:
        background.close()


def test_look_draws_it(video: Path, tmp_path: Path) -> None:
    image = np.full((30, 40, 3), 200, np.uint8)
    nobody = Result(np.zeros((8, 8), np.float32), (30, 40))
    behind = open_background(video)
    assert isinstance(behind, VideoBackground)
    picture = Look("replace", background=behind).render(Frame(image), nobody)
    assert (picture.shape, _number(picture)) == (image.shape, 0)
    behind.close()
    cv2.imwrite(str(tmp_path / "still.png"), np.full((9, 9, 3), 70, np.uint8))
    still = Look("replace", background=open_background(tmp_path / "still.png"))
    np.testing.assert_array_equal(still.render(Frame(image), nobody), np.full_like(image, 70))


def test_refusals(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    for path in (tmp_path, tmp_path / "broken.mp4", tmp_path / "missing.png", tmp_path / "missing.mp4"):
        with pytest.raises(InputError):
            open_background(path)
