"""Nothing that a run reads is written over by it, under whatever name it is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgesod.cli._overwriting import refuse_overwriting
from edgesod.errors import UsageError
from tests.helpers.cli import edgesod


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for name in ("out-0.mp4", "clip.mp4", "p.png", "img_0001.png", "pictures/cat.jpg", "pictures/img_7.png"):
        (tmp_path / name).write_text("precious")
    (tmp_path / "link.mp4").symlink_to("clip.mp4")
    return tmp_path


@pytest.mark.parametrize(
    ("source", "out"),
    [
        ("clip.mp4", "clip.mp4"),
        ("clip.mp4", "./pictures/../clip.mp4"),
        ("clip.mp4", "link.mp4"),
        ("link.mp4", "file://clip.mp4"),
        ("file://clip.mp4", "clip.mp4"),
        ("file://clip.mp4?loop=2", "clip.mp4"),
        ("img_%04d.png", "img_%04d.png"),
        ("img_%04d.png", "img_0001.png"),
        ("img_%04d.png", "."),
        ("img_0001.png", "img_%04d.png"),
        ("pictures", "pictures"),
        ("pictures", "pictures/cat.jpg"),
        ("pictures/", "pictures/img_%d.png"),
        ("pictures/cat.jpg", "file://pictures"),
    ],
)
@pytest.mark.usefixtures("here")
def test_an_output_that_may_hit_an_input_is_refused(source: str, out: str) -> None:
    with pytest.raises(UsageError, match="would overwrite the input"):
        refuse_overwriting(["0", source], ["null", out])


@pytest.mark.parametrize(
    ("source", "out"),
    [
        ("clip.mp4", "other.mp4"),
        ("img_%04d.png", "img_%04d.jpg"),
        ("pictures", "pictures/dog.jpg"),
        ("pictures", "elsewhere"),
        ("rtsp://me:secret@host/clip.mp4", "clip.mp4"),
        ("-", "-"),
        ("absent.mp4", "absent.mp4"),
    ],
)
@pytest.mark.usefixtures("here")
def test_any_other_is_let_through(source: str, out: str) -> None:
    refuse_overwriting([source], [out])


@pytest.mark.parametrize(
    "words",
    [
        ["out-0.mp4", "clip.mp4", "--out", "out.mp4"],
        ["clip.mp4", "--background", "p.png", "--effect", "replace", "--out", "p.png"],
        ["--image", "p.png", "--contact-sheet", "p.png"],
    ],
)
def test_the_command_looks_at_names_after_numbering_at_the_background_and_at_the_sheet(here: Path, words: list[str]) -> None:
    done = edgesod("run", *words, cwd=here)
    assert (done.returncode, "would overwrite the input" in done.stderr) == (2, True), done.stderr
    assert {path.read_text() for path in here.rglob("*.*")} == {"precious"}
