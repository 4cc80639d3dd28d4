"""What a person types for TensorRT becomes options, or a usage error."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from edgesod.builder import TensorRtOptions
from edgesod.cli._options import frame_hw, tensorrt_options
from edgesod.cli.app import app
from edgesod.errors import UsageError

NOTHING: dict[str, Any] = {
    "typing": "auto",
    "int8_route": "auto",
    "workspace": None,
    "opt_level": None,
    "compatibility": "none",
    "version_compatible": False,
    "dla": None,
    "batch": "1",
}


def test_options_are_taken_as_they_are_typed() -> None:
    assert tensorrt_options(**NOTHING) is None
    asked = {"typing": "weak", "int8_route": "implicit", "workspace": 512, "opt_level": 2, "compatibility": "ampere-plus"}
    got = tensorrt_options(**NOTHING | asked | {"version_compatible": True, "dla": 1, "batch": "1:2:8"})
    assert got == TensorRtOptions(
        typing="weak",
        int8_route="implicit",
        workspace_mib=512,
        optimization_level=2,
        hardware_compatibility="ampere-plus",
        is_version_compatible=True,
        dla_core=1,
        batch=(1, 2, 8),
    )
    assert tensorrt_options(**NOTHING | {"batch": "4"}) == TensorRtOptions(batch=(1, 4, 4))
    assert TensorRtOptions().words == ()
    command = typer.main.get_command(app).commands["build"]  # type: ignore[attr-defined]
    for options in (got, TensorRtOptions(typing="strong", hardware_compatibility="same-compute-capability", dla_core=0)):
        assert options is not None
        typed = command.make_context("build", " ".join(options.words).split()).params
        assert tensorrt_options(**{name: typed[name] for name in NOTHING}) == options


def test_sizes_of_frames_are_width_by_height() -> None:
    assert frame_hw("1280x720") == (720, 1280)
    for text in ("720", "1280x", "1280x-720", "0x720", "1280x720x3", "wide"):
        with pytest.raises(UsageError, match="no size of frames"):
            frame_hw(text)


@pytest.mark.parametrize(
    "asked",
    [
        {"typing": "strict"},
        {"int8_route": "entropy"},
        {"workspace": 0},
        {"opt_level": 6},
        {"compatibility": "all"},
        {"dla": -1},
        {"batch": "many"},
        {"batch": "1:2"},
    ],
)
def test_what_makes_no_sense_is_a_usage_error(asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="cannot be asked for"):
        tensorrt_options(**NOTHING | asked)
