"""The scores equal PySODMetrics' on made-up and on published maps, and the published numbers where those are there."""

from __future__ import annotations

import os
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgesod.evaluation.metrics import SodScorer
from edgesod.evaluation.scoring import accumulate_folder

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("EDGESOD_DATA", ROOT.parent / "shared" / "data"))
Pair = tuple[np.ndarray, np.ndarray]


def _reference(pairs: list[Pair]) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package warns of its own coming changes
        import py_sod_metrics as sod

        f, mae, s, e, w = sod.Fmeasure(), sod.MAE(), sod.Smeasure(), sod.Emeasure(), sod.WeightedFmeasure()
    for saliency, truth in pairs:
        for metric in (f, mae, s, e, w):
            metric.step(saliency, truth)
    f_results, e_results = f.get_results()["fm"], e.get_results()["em"]
    return {
        "mae": mae.get_results()["mae"],
        "max_f_mean": f_results["curve"].max(),
        "mean_f": f_results["curve"].mean(),
        "adp_f": f_results["adp"],
        "weighted_f": w.get_results()["wfm"],
        "s_measure": s.get_results()["sm"],
        "e_measure": e_results["curve"].mean(),
        "max_e": e_results["curve"].max(),
        "adp_e": e_results["adp"],
    }


def _ours(pairs: list[Pair]) -> dict[str, float]:
    scorer = SodScorer(full=True)
    for saliency, truth in pairs:
        scorer.add(saliency, truth, stretch=True)
    return scorer.scores()


def _assert_equal(pairs: list[Pair], tolerance: float = 1e-9) -> None:
    ours, reference = _ours(pairs), _reference(pairs)
    assert {name: ours[name] for name in reference} == pytest.approx(reference, abs=tolerance)


def _blob(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    noise = cv2.GaussianBlur(rng.random((height, width)), (0, 0), 3)
    return ((noise > np.quantile(noise, rng.uniform(0.3, 0.95))) * 255).astype(np.uint8)


@pytest.mark.parametrize("seed", range(12))
def test_equals_pysodmetrics_on_random_maps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(9, 70, 2))
    truth = _blob(rng, height, width)
    near = cv2.GaussianBlur(truth, (0, 0), 2).astype(float) + rng.normal(0, 40, truth.shape)
    _assert_equal([(np.clip(near, 0, 255).astype(np.uint8), truth)])


@pytest.mark.parametrize("seed", range(4))
def test_equals_pysodmetrics_where_many_object_pixels_are_equally_near(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = ((rng.random((40, 50)) < 0.15) * 255).astype(np.uint8)
    _assert_equal([(rng.integers(0, 256, truth.shape).astype(np.uint8), truth)])


FLAT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "zero": np.zeros_like,
    "full": lambda truth: np.full_like(truth, 255),
    "grey": lambda truth: np.full_like(truth, 77),
    "perfect": np.copy,
    "inverse": lambda truth: 255 - truth,
}


@pytest.mark.parametrize("truth", ["object", "zero", "full", "one pixel", "touching the border"])
@pytest.mark.parametrize("saliency", FLAT)
def test_equals_pysodmetrics_on_extreme_maps(saliency: str, truth: str) -> None:
    mask = np.zeros((24, 33), np.uint8)
    if truth == "object":
        mask[5:15, 8:20] = 255
    elif truth == "one pixel":
        mask[11, 17] = 255
    elif truth == "full":
        mask[:] = 255
    elif truth == "touching the border":
        mask[:, :9] = 255
    _assert_equal([(FLAT[saliency](mask), mask)])


def test_a_centroid_in_the_last_row_leaves_no_region_to_divide_by() -> None:
    truth = np.zeros((10, 12), np.uint8)
    truth[-1] = 255  # PySODMetrics gives NaN here
    scores = _ours([(truth, truth)])
    assert scores["s_measure"] == pytest.approx(1, abs=1e-9)
    assert all(np.isfinite(value) for value in scores.values())


def test_a_single_pixel_is_scored() -> None:
    for value in (0, 255):
        scores = _ours([(np.full((1, 1), value, np.uint8), np.full((1, 1), 255, np.uint8))])
        assert all(0 <= score <= 1 for score in scores.values())


def test_float_and_uint8_maps_score_alike() -> None:
    rng = np.random.default_rng(0)
    truth = _blob(rng, 30, 40)
    saliency = rng.integers(0, 256, truth.shape).astype(np.uint8)
    a, b = SodScorer(), SodScorer()
    a.add(saliency, truth)
    b.add(saliency.astype(np.float64) / 255, truth)
    assert a.scores() == b.scores()


def test_stretching_is_asked_for() -> None:
    truth = np.zeros((8, 8), np.uint8)
    truth[2:6, 2:6] = 255
    faint = (truth // 4).astype(np.uint8)
    plain, stretched = SodScorer(), SodScorer()
    plain.add(faint, truth)
    stretched.add(faint, truth, stretch=True)
    assert stretched.scores()["mae"] == 0 < plain.scores()["mae"]


def test_merging_parts_equals_scoring_the_whole() -> None:
    rng = np.random.default_rng(3)
    pairs = [(rng.integers(0, 256, (20, 20)).astype(np.uint8), _blob(rng, 20, 20)) for _ in range(5)]
    whole, first, second = SodScorer(full=True), SodScorer(full=True), SodScorer(full=True)
    for k, pair in enumerate(pairs):
        whole.add(*pair)
        (first if k < 2 else second).add(*pair)
    first.merge(second)
    assert first.scores() == pytest.approx(whole.scores(), abs=1e-12)
    with pytest.raises(ValueError, match="cannot be merged"):
        first.merge(SodScorer())


def test_the_cheap_scores_are_those_of_the_full() -> None:
    rng = np.random.default_rng(4)
    pair = (rng.random((20, 30)).astype(np.float32), _blob(rng, 20, 30))
    cheap, full = SodScorer(), SodScorer(full=True)
    cheap.add(*pair)
    full.add(*pair)
    assert cheap.scores().items() <= full.scores().items()
    assert set(cheap.scores()) == {"n", "mae", "max_f", "max_f_mean", "mean_f", "adp_f"}


def test_curves_peak_at_the_scores_named_after_them() -> None:
    rng = np.random.default_rng(5)
    scorer = SodScorer()
    for _ in range(3):
        scorer.add(rng.random((20, 30)), _blob(rng, 20, 30))
    scores, curves = scorer.scores(), scorer.curves()
    assert curves.f.max() == scores["max_f"]
    assert curves.f_mean.max() == scores["max_f_mean"]
    assert curves.recall[-1] == 1  # at threshold 0 everything belongs


@pytest.mark.parametrize(
    ("saliency", "message"),
    [
        (np.zeros((4, 5), np.float32), "of one size"),
        (np.full((4, 4), np.nan, np.float32), r"within \[0, 1\]"),
        (np.full((4, 4), 3.0, np.float32), r"within \[0, 1\]"),
        (np.full((4, 4), -0.5, np.float32), r"within \[0, 1\]"),
    ],
)
def test_what_is_no_map_is_refused(saliency: np.ndarray, message: str) -> None:
    scorer = SodScorer()
    with pytest.raises(ValueError, match=message):
        scorer.add(saliency, np.zeros((4, 4), np.uint8))
    assert scorer.n == 0
    with pytest.raises(ValueError, match="no picture"):
        scorer.scores()


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``Amulet/``, ``DSS/`` and ``sod/masks/``."""
    tars = [DATA / "sod-published-maps.tar", DATA / "sod-0.tar"]
    if not all(path.is_file() for path in tars):
        pytest.skip(f"{tars[0].name} and {tars[1].name} are absent")
    folder = tmp_path_factory.mktemp("published")
    for path in tars:
        with tarfile.open(path) as tar:
            members = [m for m in tar.getmembers() if "/images/" not in m.name]
            options: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            tar.extractall(folder, members, **options)
    return folder


# max F and MAE by the authors' MATLAB toolbox, the maximum of the mean F curve by PySODMetrics
@pytest.mark.parametrize(
    ("model", "max_f", "max_f_mean", "mae"), [("Amulet", 0.8061, 0.7728, 0.1407), ("DSS", 0.8439, 0.8038, 0.1213)]
)
def test_published_maps_score_as_published(published: Path, model: str, max_f: float, max_f_mean: float, mae: float) -> None:
    scores = accumulate_folder(published / model, published / "sod", full=False, jobs=1).scores()
    assert scores["n"] == 300
    wanted = {"max_f": max_f, "max_f_mean": max_f_mean, "mae": mae}
    assert {name: scores[name] for name in wanted} == pytest.approx(wanted, abs=0.0005)


@pytest.mark.parametrize("model", ["Amulet", "DSS"])
def test_published_maps_score_as_with_pysodmetrics(published: Path, model: str) -> None:
    paths = sorted((published / model).glob("*.png"))[::20]
    masks = [cv2.imread(str(published / "sod" / "masks" / path.name), cv2.IMREAD_GRAYSCALE) for path in paths]
    maps = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]
    _assert_equal([(cv2.resize(m, truth.shape[::-1]), truth) for m, truth in zip(maps, masks, strict=True)])
