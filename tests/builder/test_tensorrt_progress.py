"""Nested phases add up to one fraction."""

from __future__ import annotations

from edgesod.builder.tensorrt_process import Heartbeat
from edgesod.builder.tensorrt_progress import Progress


def test_a_step_of_a_phase_is_made_of_the_phases_within_it() -> None:
    told: list[float] = []
    progress = Progress(told.append, lambda: False)
    progress.start("build", None, 2)
    progress.start("first half", "build", 4)
    assert progress.step("first half", 0)
    assert told[-1] == 1 / 8
    progress.start("inner", "first half", 2)
    progress.step("inner", 0)
    assert told[-1] == (1 + 1 / 2) / 8
    progress.finish("inner")
    for k in range(1, 4):
        progress.step("first half", k)
    assert told[-1] == 1 / 2
    progress.finish("first half")
    progress.step("build", 0)
    progress.start("second half", "build", 10)
    progress.step("second half", 4)
    assert told[-1] == 0.75
    assert told == sorted(told)
    progress.step("unheard of", 3)
    progress.finish("unheard of")


def test_a_cancelled_build_is_stopped_at_its_next_step() -> None:
    progress = Progress(lambda fraction: None, lambda: True)
    progress.start("build", None, 2)
    assert not progress.step("build", 0)


def test_the_heartbeat_knows_the_time_left_from_the_fraction() -> None:
    now = [100.0]
    heartbeat = Heartbeat(clock=lambda: now[0])
    now[0] = 160.0
    assert heartbeat.text() == "still building after 60 s"
    heartbeat.on_fraction(0.25)
    assert heartbeat.text() == "still building after 60 s, 25% done, about 180 s left"
