"""What ``edgesod run`` puts together: a file for each source, and one threshold for everything."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from edgesod.cli._session import open_sinks, out_names, run_session
from edgesod.errors import UsageError
from edgesod.processing.look import Look
from edgesod.processing.steady import SteadySettings
from edgesod.stream import CallbackSink, open_source
from edgesod.types import Frame, Result
from tests.helpers.sleeping import sleeping_runtime
from tests.helpers.video import pictures, write_clip


def test_each_of_several_sources_gets_its_own_file(tmp_path: Path) -> None:
    clips = [write_clip(tmp_path / f"{num}.mp4", pictures(num)) for num in (4, 6)]
    sources = [open_source(clip) for clip in clips]
    with ExitStack() as stack, sleeping_runtime() as runtime:
        sinks = open_sinks(stack, sources, outs=[f"file://{tmp_path}/o.mp4"], sheet=None)
        run_session(runtime, sources, sinks, Look("green"))
    assert sorted(path.name for path in tmp_path.glob("o*")) == ["o-0.mp4", "o-1.mp4"]
    for number, num in enumerate((4, 6)):
        with open_source(tmp_path / f"o-{number}.mp4") as written:
            assert len(list(written)) == num


@pytest.mark.parametrize(
    ("out", "names"),
    [
        ("a/o.mp4", ["a/o-0.mp4", "a/o-1.mp4"]),
        ("file:///a/o.mp4", ["/a/o-0.mp4", "/a/o-1.mp4"]),
        ("folder", ["folder-0", "folder-1"]),
        ("rtsp://h/x?token=1", ["rtsp://h/x-0?token=1", "rtsp://h/x-1?token=1"]),
        ("ring://masks", ["ring://masks"]),
        ("null", ["null"]),
    ],
)
def test_names_are_numbered_where_sources_cannot_share(out: str, names: list[str]) -> None:
    assert out_names(out, 2) == names
    assert out_names(out, 1) == [out]


@pytest.mark.parametrize("out", ["/", ".", "-", "file://"])
def test_a_name_that_cannot_be_numbered_is_an_error(out: str) -> None:
    with pytest.raises(UsageError):
        out_names(out, 2)


@pytest.mark.parametrize("steady", [None, SteadySettings(area=0.5)])
@pytest.mark.parametrize(("threshold", "is_found"), [(None, False), (0.3, True), (0.45, False)])
def test_the_threshold_reaches_what_looks_at_masks_alone(
    tmp_path: Path, steady: SteadySettings | None, threshold: float | None, is_found: bool
) -> None:
    seen: list[Result] = []

    def keep(_: Frame, result: Result | None) -> None:
        assert result is not None
        seen.append(result)

    source = open_source(write_clip(tmp_path / "in.mp4", pictures(2)))
    with sleeping_runtime(saliency=lambda image: np.full_like(image[:, :1], 0.4)) as runtime:
        run_session(runtime, [source], [CallbackSink(keep)], Look(threshold=threshold), steady=steady)
    assert [(result.mask.all(), result.box is not None) for result in seen] == [(is_found, is_found)] * 2
