"""Which frames the network sees, what settings mean, and what each does to a stream."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edgesod.errors import CheckFailed, UsageError
from edgesod.processing.cleanup import clean
from edgesod.processing.guided import refine
from edgesod.processing.steady import Steady, SteadySettings, parse_steady
from edgesod.processing.temporal import psnr, small_grey
from edgesod.types import Frame, Result

MAP_HW = (40, 40)


def _scene(k: int = 0, size_hw: tuple[int, int] = (90, 120)) -> np.ndarray:
    noise = np.random.default_rng(k).integers(0, 256, (*size_hw, 3)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 4)


class Network:
    """Counts its calls, and gives the maps in turn."""

    def __init__(self, maps: list[np.ndarray] | None = None, threshold: float = 0.5) -> None:
        self.maps = maps or [np.random.default_rng(k).random(MAP_HW, np.float32) for k in range(50)]
        self.threshold = threshold
        self.num_calls = 0

    def __call__(self, image: np.ndarray) -> Result:
        self.num_calls += 1
        saliency = self.maps[self.num_calls - 1]
        return Result(saliency, (image.shape[0], image.shape[1]), self.threshold, {"inference": 5.0})


def _calls(text: str, images: list[np.ndarray]) -> list[int]:
    """Return how often the network had run after each frame."""
    steady, network, calls = Steady(parse_steady(text)), Network(), []
    for k, image in enumerate(images):
        steady(Frame(image, index=k), network)
        calls.append(network.num_calls)
    return calls


def test_without_settings_results_are_the_networks() -> None:
    network, frame = Network(threshold=0.3), Frame(_scene(), index=4)
    result = Steady(SteadySettings())(frame, network)
    np.testing.assert_array_equal(result.map_hw, network.maps[0])
    assert (result.size_hw, result.threshold, result.frame) == ((90, 120), 0.3, frame)
    assert set(result.times_ms) == {"inference", "steady"}


def test_every_so_many_frames() -> None:
    assert _calls("every=3", [_scene(k) for k in range(8)]) == [1, 1, 1, 2, 2, 2, 3, 3]
    assert _calls("every", [_scene(k) for k in range(4)]) == [1, 1, 2, 2]


def test_similar_frames_are_skipped_until_the_scene_has_drifted() -> None:
    one, other = _scene(0), _scene(1)
    noisy = np.clip(one + np.random.default_rng(9).normal(0, 2, one.shape), 0, 255).astype(np.uint8)
    assert _calls("similar=35", [one, noisy, one, other, other, one]) == [1, 1, 1, 2, 2, 3]
    drift = [cv2.addWeighted(one, 1 - t, other, t, 0) for t in np.linspace(0, 1, 30)]  # each is like the one before
    assert 2 < _calls("similar=42", drift)[-1] < 30
    assert psnr(small_grey(drift[0]), small_grey(drift[1])) > 45


def test_a_scene_that_never_changes_is_looked_at_again() -> None:
    assert _calls("similar=35", [_scene()] * 70)[-1] == 3


def test_a_held_frame_has_the_map_but_its_own_times() -> None:
    steady, network = Steady(parse_steady("every=2")), Network(threshold=0.4)
    steady(Frame(_scene(0), index=0), network)
    held = steady(Frame(_scene(1), index=1), network)
    np.testing.assert_array_equal(held.map_hw, network.maps[0])
    assert held.threshold == 0.4
    assert set(held.times_ms) == {"steady"}


@pytest.mark.parametrize("text", ["smooth=0.2", "motion=0.2", "flow=0.2", "every=5"])
def test_starts_anew_with_another_clip_or_size(text: str) -> None:
    steady, network = Steady(parse_steady(text)), Network()
    for image, index in ((_scene(), 0), (_scene(), 0), (_scene(size_hw=(60, 70)), 1)):
        result = steady(Frame(image, index=index), network)
        np.testing.assert_array_equal(result.map_hw, network.maps[network.num_calls - 1])
    assert network.num_calls == 3


def test_cleaning_refining_and_feathering_are_done_in_this_order() -> None:
    saliency = cv2.GaussianBlur(np.random.default_rng(0).random(MAP_HW, np.float32), (0, 0), 2)
    saliency = cv2.normalize(saliency, None, 0, 1, cv2.NORM_MINMAX)
    image = _scene()
    steady = Steady(parse_steady("feather=3,refine,hysteresis=0.1,area=0.01,holes=0.02"))
    result = steady(Frame(image), Network([saliency], threshold=0.6))
    expected = refine(clean(saliency, 0.6, hysteresis=0.1, min_area=0.01, max_hole=0.02), image)
    np.testing.assert_array_equal(result.map_hw, cv2.GaussianBlur(expected, (0, 0), 3))
    assert result.mask.shape == (90, 120)


def test_feather_is_in_pixels_of_the_frame() -> None:
    step = np.zeros(MAP_HW, np.float32)
    step[:, 20:] = 1
    for size_hw in ((80, 80), (160, 320)):
        result = Steady(parse_steady("feather=12"))(Frame(_scene(size_hw=size_hw)), Network([step]))
        profile = result.saliency[size_hw[0] // 2]
        weights = np.diff(profile)
        x = np.arange(len(weights))
        sigma = np.sqrt((weights * (x - (weights * x).sum()) ** 2).sum())
        assert sigma == pytest.approx(12, rel=0.15)


def test_an_error_of_the_network_is_passed_on() -> None:
    steady, network = Steady(parse_steady("flow,every=2")), Network()

    def broken(image: np.ndarray) -> Result:
        raise CheckFailed("not finite")

    with pytest.raises(CheckFailed):
        steady(Frame(_scene(), index=0), broken)
    steady(Frame(_scene(), index=1), network)
    assert network.num_calls == 1


def test_text() -> None:
    text = "motion,hysteresis=0.1,area=0.002,holes,feather=2,refine,every=2,similar=35"
    assert parse_steady(text) == SteadySettings(
        motion=0.3, hysteresis=0.1, area=0.002, holes=0.005, feather=2, refine=True, every=2, similar=35
    )
    assert parse_steady(" smooth = 0.85 , every=3 ") == SteadySettings(smooth=0.85, every=3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "''"),
        ("sooth", "'sooth'"),
        ("every=0", "every"),
        ("every=1.5", "every"),
        ("smooth=2", "smooth"),
        ("smooth=x", "smooth"),
        ("smooth=nan", "smooth"),
        ("feather=inf", "feather"),
        ("hysteresis=", "hysteresis"),
        ("area=-1", "area"),
        ("motion,flow", "name one"),
        ("every,every=3", "twice"),
        ("refine=maybe", "refine"),
    ],
)
def test_text_that_means_nothing(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        parse_steady(text)
    assert "--steady" in caught.value.hint
