"""``--config``, and the unit that uses it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from edgesod.cli._config import read_config
from edgesod.errors import EdgesodError, InputError, UsageError
from tests.helpers.cli import ROOT, edgesod


def options_with(tmp_path: Path, config: str, *words: str) -> dict[str, Any]:
    """Return the values that ``run`` would be called with."""
    (tmp_path / "run.toml").write_text(config)
    seen: dict[str, Any] = {}
    app = typer.Typer()

    @app.command()
    def command(
        context: typer.Context,
        source: list[str] = typer.Argument(None),  # noqa: B008
        out: list[str] = typer.Option(None),  # noqa: B008
        max_frames: int = typer.Option(None),
        int8: bool = typer.Option(False, "--int8"),
        as_json: bool = typer.Option(False, "--json"),
        effect: str = "overlay",
        config: Path = typer.Option(None, callback=read_config, is_eager=True),  # noqa: B008
    ) -> None:
        seen.update(
            source=source or (context.default_map or {}).get("source"),
            out=out,
            max_frames=max_frames,
            int8=int8,
            as_json=as_json,
            effect=effect,
        )

    outcome = CliRunner().invoke(app, ["--config", str(tmp_path / "run.toml"), *words])
    if isinstance(outcome.exception, EdgesodError):
        raise outcome.exception
    assert outcome.exit_code == 0, outcome.output
    return seen


CONFIG = """
source = ["rtsp://one", "rtsp://two"]
out = "a.mp4"
max-frames = 7
int8 = true
json = true
"""


def test_a_file_gives_the_options_and_the_command_line_comes_first(tmp_path: Path) -> None:
    expected = {
        "source": ["rtsp://one", "rtsp://two"],
        "out": ["a.mp4"],
        "max_frames": 7,
        "int8": True,
        "as_json": True,
        "effect": "overlay",
    }
    assert options_with(tmp_path, CONFIG) == expected
    said = options_with(tmp_path, CONFIG, "0", "--max-frames", "3", "--out", "b.mp4", "--out", "c.mp4", "--effect", "mask")
    assert said == expected | {"source": ["0"], "max_frames": 3, "out": ["b.mp4", "c.mp4"], "effect": "mask"}
    assert options_with(tmp_path, "max_frames = 2")["max_frames"] == 2


@pytest.mark.parametrize(
    ("config", "error", "named"),
    [
        ("efect = 'mask'", UsageError, "efect"),
        ("config = 'x.toml'", UsageError, "config"),
        ("effect = ['mask', 'blur']", UsageError, "one value"),
        ("[effect]\nname = 'mask'", UsageError, "one value"),
        ("effect = ", InputError, "TOML"),
    ],
)
def test_a_wrong_file_is_an_error_that_says_where(tmp_path: Path, config: str, error: type[EdgesodError], named: str) -> None:
    with pytest.raises(error, match=named) as caught:
        options_with(tmp_path, config)
    assert "run.toml" in str(caught.value)


def test_run_takes_it_and_writes_its_log_as_json(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("source = 'missing.mp4'\nlog-format = 'json'\n")
    done = edgesod("run", "--config", "run.toml", cwd=tmp_path)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert '"level": "error"' in line
    assert "missing.mp4 does not exist" in line
    assert done.stdout == ""


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
