"""What is left out of a stream that is decoded too slowly, by a simulated clock."""

from __future__ import annotations

import pytest

from edgesod.stream.sources.backlog import Advice, Backlog

FPS = 25


def simulate(
    decode_s: float, seconds: float, *, gop: int = 50, stall: tuple[float, float] = (0, 0), jump_s: float = 0
) -> list[float]:
    """Return how late each shown picture was, in seconds; ``jump_s`` sets the camera's clock back in the middle."""
    backlog, now_s, late_s = Backlog(), 0.0, []
    for k in range(round(seconds * FPS)):
        taken_s = k / FPS
        arrives_s = stall[1] if stall[0] <= taken_s < stall[1] else taken_s
        now_s = max(now_s, arrives_s)
        stamp_s = taken_s - (jump_s if taken_s > seconds / 2 else 0)
        advice = backlog.advice(1000 + stamp_s, now_s, k % gop == 0)
        if advice is not Advice.SKIP:
            now_s += decode_s
        if advice is Advice.SHOW:
            late_s.append(now_s - taken_s)
    return late_s


@pytest.mark.parametrize("decode_s", [0.001, 0.039])
def test_a_decoder_fast_enough_shows_everything(decode_s: float) -> None:
    assert len(simulate(decode_s, 600)) == 600 * FPS


@pytest.mark.parametrize("decode_s", [0.05, 0.08, 0.3])
def test_a_decoder_too_slow_never_shows_what_is_old(decode_s: float) -> None:
    late_s = simulate(decode_s, 120)
    assert max(late_s) < 1.5 + decode_s
    assert len(late_s) > 0.15 * 120 / max(decode_s, 1 / FPS)


def test_after_a_stall_of_the_network_the_old_is_passed_over() -> None:
    late_s = simulate(0.005, 60, stall=(20, 28))
    assert max(late_s) < 1.1
    assert len(late_s) > 50 * FPS


@pytest.mark.parametrize("jump_s", [-20, -3, 3, 20, 100, -1e6, 1e6])
def test_a_clock_that_jumps_costs_seconds_at_most(jump_s: float) -> None:
    late_s = simulate(0.005, 60, jump_s=jump_s)
    assert len(late_s) > (60 - 8) * FPS
    assert max(late_s) < 0.1
