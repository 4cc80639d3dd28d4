"""A packed set fits its budget, says what that cost, and is read like the folder it came from."""

from __future__ import annotations

import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from edgesod.errors import InputError, UsageError
from edgesod.evaluation.pairs import EvaluationSet
from tests.helpers.cli import edgesod
from tests.helpers.pairs import write_pairs
from trainer.data.pack import encode_pair, pack


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pack") / "ECSSD", 12, size=140)


def test_what_fits_is_copied_byte_by_byte(data: Path, tmp_path: Path) -> None:
    done = pack(data, out=tmp_path / "all.tar", max_bytes=10_000_000)
    assert done.quality is None
    assert done.num_bytes == (tmp_path / "all.tar").stat().st_size
    with tarfile.open(tmp_path / "all.tar") as tar:
        assert tar.getnames()[:2] == ["ecssd/images/000.jpg", "ecssd/masks/000.png"]
        for name in tar.getnames():
            file = tar.extractfile(name)
            assert file is not None
            assert file.read() == (data / name.removeprefix("ecssd/")).read_bytes()


@pytest.mark.parametrize("budget", [100_000, 70_000, 50_000])
def test_budget_is_kept_and_not_wasted(data: Path, tmp_path: Path, budget: int) -> None:
    out = tmp_path / "small.tar"
    done = pack(data, out=out, max_bytes=budget)
    assert done.quality is not None
    assert 0.7 * budget < out.stat().st_size == done.num_bytes <= budget
    pairs, originals = EvaluationSet(out), EvaluationSet(data)
    assert pairs.stems == originals.stems
    for (_, image, mask), (_, before, truth) in zip(pairs, originals, strict=True):
        assert max(image.shape) == done.quality.side <= 140
        assert len(np.unique(mask)) <= 8
        back = cv2.resize(image, before.shape[1::-1])
        assert peak_signal_noise_ratio(before, back) > done.quality.psnr - 10
        assert np.mean((cv2.resize(mask, truth.shape[::-1]) > 127) != (truth > 127)) < 0.03


def test_long_names_that_take_more_than_was_reckoned_are_made_room_for(data: Path, tmp_path: Path) -> None:
    folder, blocks = tmp_path / "long", 0
    for path in sorted(data.rglob("*.*")):
        long = folder / path.parent.name / f"{'x' * 150}{path.name}"
        long.parent.mkdir(parents=True, exist_ok=True)
        long.hardlink_to(path)
        blocks += 1 + -(-path.stat().st_size // 512)
    budget = -(-(blocks + 2) // 20) * 10_240  # the tar's size were the names short
    done = pack(folder, out=tmp_path / "x.tar", max_bytes=budget)
    assert done.quality is not None
    assert (tmp_path / "x.tar").stat().st_size <= budget
    with pytest.raises(UsageError, match=r"into 0\.03 MB"):
        pack(folder, out=tmp_path / "y.tar", max_bytes=30_720)


def test_less_room_costs_quality(data: Path, tmp_path: Path) -> None:
    left = [pack(data, out=tmp_path / "x.tar", max_bytes=budget).quality for budget in (100_000, 70_000, 50_000)]
    psnr = [quality.psnr for quality in left if quality is not None]
    assert len(psnr) == 3
    assert psnr == sorted(psnr, reverse=True)


def test_the_loss_told_is_that_of_the_pictures(data: Path, tmp_path: Path) -> None:
    quality = pack(data, out=tmp_path / "x.tar", max_bytes=50_000).quality
    assert quality is not None
    originals = [image for _, image, _ in EvaluationSet(data)]
    packed = [cv2.resize(image, (140, 140)) for _, image, _ in EvaluationSet(tmp_path / "x.tar")]
    assert quality.psnr == pytest.approx(peak_signal_noise_ratio(np.array(originals), np.array(packed)), abs=0.01)


def test_the_same_pairs_make_the_same_file(data: Path, tmp_path: Path) -> None:
    for name, threads in (("a.tar", 1), ("b.tar", 3)):
        pack(data, out=tmp_path / name, max_bytes=50_000, threads=threads)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_sets_that_share_stems_are_kept_apart(data: Path, tmp_path: Path) -> None:
    other = write_pairs(tmp_path / "other" / "mine", 13, size=40)
    with pytest.raises(InputError, match="two files stand for one stem"):
        EvaluationSet(data, other)
    pack(data, other, out=tmp_path / "both.tar", max_bytes=10_000_000)
    both = EvaluationSet(tmp_path / "both.tar")
    assert both.stems == sorted([f"{name}-{k:03d}" for name in ("ecssd", "mine") for k in range(12)] + ["012"])
    np.testing.assert_array_equal(both.read("mine-003")[0], EvaluationSet(other).read("003")[0])
    np.testing.assert_array_equal(both.read("ecssd-003")[1], EvaluationSet(data).read("003")[1])
    with pytest.raises(InputError, match="two files stand for 000 of ecssd"):
        pack(data, data, out=tmp_path / "twice.tar", max_bytes=10_000_000)


def test_masks_keep_their_edges_within_a_level() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    mask = np.tile(np.linspace(0, 255, 64).round().astype(np.uint8), (64, 1))
    _, png = encode_pair(image, mask, 64, 90)
    stored = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert (stored.min(), stored.max(), len(np.unique(stored))) == (0, 255, 8)
    assert np.abs(stored.astype(int) - mask).max() <= 255 / 14 + 1


def test_impossible_wishes_leave_nothing_behind(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.tar"
    out.write_bytes(b"before")
    with pytest.raises(UsageError, match="do not fit") as caught:
        pack(data, out=out, max_bytes=20_000)
    assert "--max-mb" in caught.value.hint
    broken = write_pairs(tmp_path / "broken", 6, size=140)
    (broken / "images" / "004.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"004\.jpg cannot be decoded"):
        pack(broken, out=out, max_bytes=40_000)
    assert out.read_bytes() == b"before"
    assert list(tmp_path.glob(".*")) == []
    with pytest.raises(UsageError, match="what is read"):
        pack(out, out=out, max_bytes=20_000)


def test_the_command_tells_what_it_chose(data: Path, tmp_path: Path) -> None:
    done = edgesod("data", "pack", str(data), "--max-mb", "0.07", "--out", "small.tar", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "12 pairs" in done.stdout
    assert "JPEG quality" in done.stdout
    assert edgesod("data", "check", "small.tar", "--json", "--set", "SED2", cwd=tmp_path).returncode == 0
