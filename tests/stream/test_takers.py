"""Which sink is given which frame, and what becomes of its output when a run fails."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgesod.errors import InputError, OutputError
from edgesod.stream import Sink, Source, run_pipeline
from edgesod.types import Frame, Result


class Numbers(Source):
    """Yields frames ``period_s`` apart until it is closed, or raises after ``breaks_after`` of them."""

    def __init__(self, *, is_live: bool, breaks_after: int | None = None, most: int = 10_000, period_s: float = 0.002) -> None:
        self.name, self.is_live = "numbers", is_live
        self._breaks_after, self._most, self._period_s = breaks_after, most, period_s

    def __iter__(self) -> Iterator[Frame]:
        for k in range(self._most):
            if self.state == "closed":
                return
            if k == self._breaks_after:
                raise InputError("broken")
            time.sleep(self._period_s)
            yield Frame(np.zeros((4, 4, 3), np.uint8), k, captured_at_s=time.perf_counter())

    def close(self) -> None:
        self.state = "closed"


class Keeping(Sink):
    """Says how it ended; raises at picture number ``fails_at``."""

    name = "keeping"

    def __init__(self, source: int | None = None, fails_at: int | None = None) -> None:
        self.source, self._fails_at = source, fails_at
        self.seen: list[Frame] = []
        self.images: list[NDArray[Any]] = []
        self.ended = ""

    def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
        if len(self.seen) == self._fails_at:
            raise OutputError("full")
        self.seen.append(frame)
        self.images.append(image)

    def close(self) -> None:
        self.ended = self.ended or "kept"

    def abort(self) -> None:
        self.ended = self.ended or "thrown away"


def process(frame: Frame) -> Result:
    return Result(np.zeros((2, 2), np.float32), (4, 4), frame=frame)


def drawn(frame: Frame, _: Result) -> NDArray[np.uint8]:
    return frame.image + 9


@pytest.mark.parametrize("render", [None, drawn])
def test_a_sink_of_one_source_is_given_its_frames_only(render: Any) -> None:
    own, everybodys = [Keeping(0), Keeping(1)], Keeping()
    sources = [Numbers(is_live=False, most=5), Numbers(is_live=False, most=7)]
    run_pipeline(sources, process, render, [*own, everybodys])
    assert [[(frame.source, frame.index) for frame in sink.seen] for sink in own] == [
        [(0, k) for k in range(5)],
        [(1, k) for k in range(7)],
    ]
    assert len(everybodys.seen) == 12


def test_a_recording_of_a_live_source_survives_another_source_and_another_sink() -> None:
    file, live, both = Keeping(0), Keeping(1), Keeping()
    with pytest.raises(InputError, match="broken"):
        run_pipeline([Numbers(is_live=False, breaks_after=20), Numbers(is_live=True)], process, None, [file, live, both])
    assert (file.ended, live.ended, both.ended) == ("thrown away", "kept", "kept")

    bad, good = Keeping(0, fails_at=5), Keeping(1)
    with pytest.raises(OutputError, match="full"):
        run_pipeline([Numbers(is_live=True), Numbers(is_live=True)], process, None, [bad, good])
    assert (bad.ended, good.ended) == ("thrown away", "kept")


def test_only_what_a_sink_takes_is_drawn_for_it() -> None:
    class EveryFifth(Keeping):
        def takes(self, frame: Frame) -> bool:
            return frame.index % 5 == 0

    class Blind(Keeping):
        wants_picture = False

    sink, blind, num_drawn = EveryFifth(), Blind(), 0

    def counting(frame: Frame, result: Result) -> NDArray[np.uint8]:
        nonlocal num_drawn
        num_drawn += 1
        return drawn(frame, result)

    report = run_pipeline(Numbers(is_live=False, most=20), process, counting, [sink, blind])
    assert (report.frames, num_drawn, len(blind.seen)) == (20, 4, 20)
    assert [frame.index for frame in sink.seen] == [0, 5, 10, 15]
    assert all((image == 9).all() for image in sink.images)
