"""What the commands print besides their results."""

from __future__ import annotations

import json

import pytest

from edgesod.cli import _output


def test_where_there_is_no_terminal_a_line_now_and_then_tells_how_long_it_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(_output.time, "monotonic", lambda: clock[0])
    with _output.progress("train") as update:
        for seen in (100, 150, 200, 250):  # a resumed run does not begin at 0
            update(seen, 1300, "5.0 images/s")
            clock[0] += 30
        update(0, None)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "train: 200 of 1,300, 0:11:00 left, 5.0 images/s\n"


def test_lines_of_progress_are_objects_in_a_json_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_output._manner, "log_is_json", True)
    monkeypatch.setattr(_output._Lines, "EVERY_S", 0.0)
    with _output.progress("eval") as update:
        update(0, 2)
        update(0, 2)
    assert json.loads(capsys.readouterr().err)["message"] == "eval: 0 of 2"
