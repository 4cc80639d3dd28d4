"""``--config``, and the unit that uses it."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from edgesod.cli.app import app
from edgesod.errors import EdgesodError, InputError, UsageError
from edgesod.stream.sources.options import parse_options
from edgesod.stream.sources.raw import RawSource
from tests.helpers.cli import ROOT, edgesod


def called_with(*words: str) -> dict[str, Any]:
    """Return the values that the real ``edgesod`` calls ``run`` with."""
    seen: dict[str, Any] = {}
    group: Any = typer.main.get_command(app)
    group.commands["run"].callback = seen.update
    group.main(["run", *words], standalone_mode=False)
    return seen


def options_with(tmp_path: Path, config: str, *words: str) -> dict[str, Any]:
    """Return the values that are no defaults, with a configuration."""
    (tmp_path / "run.toml").write_text(config)
    plain = called_with()
    called = called_with("--config", str(tmp_path / "run.toml"), *words)
    return {name: value for name, value in called.items() if value != plain[name] and name != "config"}


CONFIG = """
source = ["rtsp://one", "rtsp://two"]
out = "a.mp4"
max-frames = 7
int8 = true
json = true
"""


def test_a_file_gives_the_options_and_the_command_line_comes_first(tmp_path: Path) -> None:
    expected = {"source": ["rtsp://one", "rtsp://two"], "out": ["a.mp4"], "max_frames": 7, "int8": True, "as_json": True}
    assert options_with(tmp_path, CONFIG) == expected
    said = options_with(tmp_path, CONFIG, "0", "--max-frames", "3", "--out", "b.mp4", "--out", "c.mp4", "--effect", "mask")
    assert said == expected | {"source": ["0"], "max_frames": 3, "out": ["b.mp4", "c.mp4"], "effect": "mask"}
    assert options_with(tmp_path, "max_frames = 2") == {"max_frames": 2}


@pytest.mark.parametrize(
    ("config", "words", "left"),
    [
        ("camera = 7", ["synthetic://"], {"source": ["synthetic://"]}),
        ("source = 'a.mp4'", ["--camera", "0"], {"camera": 0}),
        ("source = 'a.mp4'\nimage = 'b.png'", ["--video", "c.mp4"], {"video": "c.mp4"}),
        ("int8 = true", ["--fp32"], {"fp32": True}),
        ("int8 = true\nmodel = 'u2net'", ["--engine", "mine"], {"engine": Path("mine")}),
        ("engine = 'engines/mine'", ["--model", "u2net"], {"model": "u2net"}),
        ("model = 'u2net'\nint8 = true", ["--camera", "2"], {"camera": 2, "model": "u2net", "int8": True}),
    ],
)
def test_what_the_command_line_says_of_a_thing_replaces_every_name_the_file_has_for_it(
    tmp_path: Path, config: str, words: list[str], left: dict[str, Any]
) -> None:
    assert {name: value for name, value in options_with(tmp_path, config, *words).items() if value is not None} == left


def test_what_is_advised_for_raw_pictures_can_be_typed() -> None:
    with pytest.raises(UsageError) as caught:
        RawSource()
    called = called_with(*shlex.split(caught.value.hint)[2:])
    options = parse_options(called["source_options"])
    assert (called["source"], options.width, options.height) == (["-"], 640, 480)
    called = called_with("-?width=640&height=480", "--effect", "mask")
    assert (called["source"], called["effect"]) == (["-?width=640&height=480"], "mask")


@pytest.mark.parametrize(
    ("config", "error", "named"),
    [
        ("efect = 'mask'", UsageError, "efect"),
        ("config = 'x.toml'", UsageError, "config"),
        ("effect = ['mask', 'blur']", UsageError, "one value"),
        ("[effect]\nname = 'mask'", UsageError, "one value"),
        ("effect = ", InputError, "TOML"),
        ("threshold = 'high'", UsageError, "threshold: .*number"),
        ("max-frames = 0", UsageError, "max-frames: .*1"),
    ],
)
def test_a_wrong_file_is_an_error_that_says_where(tmp_path: Path, config: str, error: type[EdgesodError], named: str) -> None:
    with pytest.raises(error, match=named) as caught:
        options_with(tmp_path, config)
    assert "run.toml" in str(caught.value)


def test_a_wrong_value_on_the_command_line_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="1") as caught:
        options_with(tmp_path, "max-frames = 7", "--max-frames", "0")
    assert not isinstance(caught.value, EdgesodError), "typer says it, with the usage"


def test_run_takes_it_and_writes_its_log_as_json(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("source = 'missing.mp4'\nlog-format = 'json'\n")
    done = edgesod("run", "--config", "run.toml", cwd=tmp_path)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert '"level": "error"' in line
    assert "missing.mp4 does not exist" in line
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["63", "--log-format=json"], 3, "camera 63 cannot be opened"),
        (["--log-format", "json", "--nonesuch"], 2, "nonesuch"),
        (["--config", "wrong.toml"], 2, "efect"),
    ],
)
def test_every_line_of_a_json_log_is_an_object_whatever_is_wrong(
    tmp_path: Path, words: list[str], code: int, says: str
) -> None:
    (tmp_path / "wrong.toml").write_text("efect = 'mask'\nlog-format = 'json'\n")
    done = edgesod("run", *words, cwd=tmp_path)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert (done.returncode, lines[-1]["level"]) == (code, "error")
    assert says in lines[-1]["message"]


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is absent")
    unit = (ROOT / "docs" / "edgesod.service").read_text()
    assert "/opt/edgesod/bin/edgesod run --config" in unit
    (tmp_path / "edgesod.service").write_text(unit.replace("/opt/edgesod/bin/edgesod", shutil.which("true") or "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "edgesod.service")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
