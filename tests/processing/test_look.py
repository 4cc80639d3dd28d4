"""A look is changed while it is in use, and never by halves."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from edgesod.errors import UsageError
from edgesod.processing.effects import apply_effect
from edgesod.processing.look import Look
from edgesod.types import Frame, Result

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
FRAME = Frame(IMAGE)


def _result() -> Result:
    return Result(np.random.default_rng(1).random((10, 10), np.float32), (40, 60), 0.5)


def test_draws_the_effect_at_the_threshold() -> None:
    look = Look("mask")
    np.testing.assert_array_equal(look.render(FRAME, _result()), apply_effect("mask", IMAGE, _result()))
    look.set(threshold=0.8)
    expected = np.where(_result().saliency >= 0.8, 255, 0)
    np.testing.assert_array_equal(look.render(FRAME, _result())[:, :, 0], expected)
    look.set(effect="green")
    assert (look.effect, look.threshold) == ("green", 0.8)
    assert look.as_dict() == {"effect": "green", "threshold": 0.8, "background": False}
    look.set(effect="mask", threshold=None)
    np.testing.assert_array_equal(look.render(FRAME, _result()), apply_effect("mask", IMAGE, _result()))


def test_the_result_keeps_its_own_threshold() -> None:
    result = _result()
    Look("mask", threshold=0.9).render(FRAME, result)
    assert result.threshold == 0.5
    np.testing.assert_array_equal(result.mask, np.where(result.saliency >= 0.5, 255, 0))


def test_a_background_is_a_picture_or_what_gives_one() -> None:
    picture = np.full((20, 30, 3), (1, 2, 3), np.uint8)
    expected = apply_effect("replace", IMAGE, _result(), picture)
    still, moving = Look("replace", background=picture), Look("replace", background=lambda frame: picture[:, ::-1])
    for _ in range(2):  # a still one is scaled once
        np.testing.assert_array_equal(still.render(FRAME, _result()), expected)
    np.testing.assert_array_equal(moving.render(FRAME, _result()), expected)
    other = Frame(IMAGE[:30])
    small = Result(_result().map_hw, (30, 60))
    np.testing.assert_array_equal(still.render(other, small), apply_effect("replace", other.image, small, picture))
    assert still.as_dict()["background"] is True


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"effect": "sepia"}, "sepia"),
        ({"effect": "replace"}, "background"),
        ({"threshold": 0}, "between 0 and 1"),
        ({"threshold": 1.0}, "between 0 and 1"),
        ({"threshold": float("nan")}, "between 0 and 1"),
        ({"threshold": "0.5"}, "between 0 and 1"),
        ({"threshold": True}, "between 0 and 1"),
        ({"effect": "mask", "threshold": 7}, "between 0 and 1"),
    ],
)
def test_nonsense_changes_nothing(change: dict, words: str) -> None:
    look = Look("blur", 0.25)
    with pytest.raises(UsageError, match=words):
        look.set(**change)
    assert (look.effect, look.threshold) == ("blur", 0.25)
    with pytest.raises(UsageError, match=words):
        Look(**change)


def test_a_picture_is_drawn_with_one_look() -> None:
    look, done = Look("mask", 0.2), threading.Event()
    pairs = (("mask", 0.2), ("cutout", 0.9))
    allowed = {apply_effect(name, IMAGE, Result(_result().map_hw, (40, 60), t)).tobytes() for name, t in pairs}

    def change() -> None:
        while not done.is_set():
            for name, threshold in pairs:
                look.set(effect=name, threshold=threshold)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        seen: set[bytes] = set()
        for k in range(20_000):  # where cores are busy, the other thread may not get a turn within the first few hundred
            seen.add(look.render(FRAME, _result()).tobytes())
            if k >= 300 and len(seen) > 1:
                break
    finally:
        done.set()
        thread.join()
    assert seen <= allowed
    assert len(seen) == 2
