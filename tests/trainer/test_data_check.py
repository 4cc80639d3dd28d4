"""A set with every kind of fault in it is told apart from one that is whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgesod.errors import InputError
from edgesod.evaluation import SodScorer
from edgesod.evaluation.datasets import find_dataset
from tests.helpers.cli import ROOT, edgesod
from tests.helpers.pairs import write_pairs
from trainer.data.check import CheckReport, check


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "mine", 12)


def _found(report: CheckReport) -> dict[str, list[str]]:
    return {finding.name: finding.files for finding in report.findings if finding.files}


def test_a_whole_set_is_fit(data: Path) -> None:
    told: list[tuple[int, int]] = []
    report = check(data, on_progress=lambda *done: told.append(done))
    assert report.is_fit
    assert _found(report) == {}
    assert (report.pairs, report.smallest, report.median, report.largest) == (12, 48, 48, 48)
    assert (report.soft_masks, report.soft_share) == (0, 0.0)
    assert told == [(k, 12) for k in range(1, 13)]


def test_every_fault_is_found_and_no_other(data: Path) -> None:
    images, masks = data / "images", data / "masks"
    (images / "000.jpg").write_bytes(b"\xff\xd8 no picture \xff\xd9")
    jpeg = (images / "001.jpg").read_bytes()
    (images / "001.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    png = (masks / "002.png").read_bytes()
    (masks / "002.png").write_bytes(png[: len(png) // 2])
    cv2.imwrite(str(masks / "003.png"), np.full((48, 47), 255, np.uint8))
    cv2.imwrite(str(masks / "004.png"), cv2.imread(str(masks / "004.png"), 0) // 255)
    (masks / "005.png").unlink()
    (images / "006.jpg").unlink()
    cv2.imwrite(str(masks / "007.png"), np.zeros((48, 48), np.uint8))
    cv2.imwrite(str(masks / "008.png"), np.tile(np.linspace(0, 255, 48).astype(np.uint8), (48, 1)))
    shutil.copy(images / "009.jpg", images / "010.jpg")
    again = cv2.imread(str(images / "008.jpg"))
    cv2.imwrite(str(images / "011.jpg"), again, [cv2.IMWRITE_JPEG_QUALITY, 90])
    report = check(data)
    found = _found(report)
    expected = {
        "unreadable": ["000.jpg"],
        "truncated": ["001.jpg", "002.png"],
        "size mismatches": ["003.jpg"],
        "dark masks": ["004.png"],
        "orphans": ["005.jpg", "006.png"],
        "blank masks": ["003.png", "007.png"],
        "non-binary masks": ["008.png"],
        "same file twice": ["010 = 009"],
        "near duplicates": ["011 ≈ 008"],
    }
    assert found.keys() == expected.keys()
    for kind, names in expected.items():
        assert len(found[kind]) == len(names), found[kind]
        assert all(name in seen for name, seen in zip(names, found[kind], strict=True)), found[kind]
    assert not report.is_fit
    assert report.pairs == 10


@pytest.mark.parametrize(("brightest", "is_dark"), [(128, True), (129, False)])
def test_a_mask_is_dark_when_scoring_finds_no_object_in_it(data: Path, brightest: int, is_dark: bool) -> None:
    path = data / "masks" / "000.png"
    mask = cv2.imread(str(path), 0) // 255 * np.uint8(brightest)
    cv2.imwrite(str(path), mask)
    assert ("dark masks" in _found(check(data))) == is_dark
    scorer = SodScorer()
    scorer.add(mask / np.float32(255), mask)
    assert (scorer.scores()["max_f"] < 0.5) == is_dark


@pytest.mark.parametrize("blank", [11, 12])
def test_a_set_without_a_single_object_is_not_fit(data: Path, blank: int) -> None:
    """SOC has pictures of nothing salient; a set of nothing else has lost its masks, to an alpha channel for one."""
    for path in sorted((data / "masks").iterdir())[:blank]:
        cv2.imwrite(str(path), np.dstack([np.zeros((48, 48, 3), np.uint8), cv2.imread(str(path), 0)]))
    report = check(data)
    assert len(_found(report)["blank masks"]) == blank
    assert report.is_fit == (blank < 12)


def test_soft_edges_are_counted_and_forgiven(data: Path) -> None:
    mask = np.zeros((48, 48), np.uint8)
    mask[10:30, 10:30] = 255
    mask[9, 10:30] = 128
    cv2.imwrite(str(data / "masks" / "000.png"), mask)
    report = check(data)
    assert report.is_fit
    assert report.soft_masks == 1
    assert report.soft_share == pytest.approx(20 / (12 * 48 * 48))


def test_thumbnail_inside_a_truncated_jpeg_does_not_hide_it(data: Path) -> None:
    path = data / "images" / "000.jpg"
    jpeg = path.read_bytes()
    comment = b"\xff\xe1" + (len(jpeg) + 2).to_bytes(2, "big") + jpeg
    whole = jpeg[:2] + comment + jpeg[2:]
    path.write_bytes(whole)
    assert check(data).is_fit
    path.write_bytes(whole[: len(whole) - len(jpeg) // 2])
    assert _found(check(data)).keys() == {"truncated"}


@pytest.mark.parametrize(("n", "is_fit"), [(12, False), (300, True)])
def test_counts_are_judged_where_they_are_known(tmp_path: Path, n: int, is_fit: bool) -> None:
    one = write_pairs(tmp_path / "one", 1, size=16)
    data = tmp_path / "SOD"
    for half, suffix in (("images", "jpg"), ("masks", "png")):
        (data / half).mkdir(parents=True)
        for k in range(n):
            (data / half / f"{k}.{suffix}").hardlink_to(one / half / f"000.{suffix}")
    report = check(data)
    assert [(count.name, count.pairs, count.expected) for count in report.counts] == [("SOD", n, (300,))]
    assert report.is_fit == is_fit
    as_other = check(data, dataset=find_dataset("thur 15k"))
    assert [(count.name, count.expected) for count in as_other.counts] == [("THUR-15K", ())]
    assert as_other.is_fit


def test_duplicates_are_found_however_far_apart(tmp_path: Path) -> None:
    """In more pictures than are compared at a time."""
    rng = np.random.default_rng(0)
    data = tmp_path / "set"
    for half in ("images", "masks"):
        (data / half).mkdir(parents=True)
    n = 700
    pictures = rng.integers(0, 256, (n, 20, 20, 3), dtype=np.uint8)
    twins = {600: 3, 699: 698, 515: 510}
    for later, earlier in twins.items():
        pictures[later] = pictures[earlier]
        pictures[later, 0, 0] ^= 1
    mask = np.zeros((20, 20), np.uint8)
    mask[5:9] = 255
    for k, picture in enumerate(pictures):
        cv2.imwrite(str(data / "images" / f"{k:03d}.png"), picture)
        cv2.imwrite(str(data / "masks" / f"{k:03d}.png"), mask)
    assert _found(check(data)) == {"near duplicates": [f"{a:03d} ≈ {b:03d}" for a, b in sorted(twins.items())]}


def test_the_command_says_what_is_wrong(data: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.add(data, "mine")
    done = edgesod("data", "check", "set.tar", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"] == [{"name": "set/mine/images", "pairs": 12, "expected": [], "is_right": True}]
    (data / "images" / "000.jpg").write_bytes(b"")
    done = edgesod("data", "check", "mine", cwd=tmp_path)
    assert done.returncode == 1
    assert "1 unreadable" in done.stderr
    assert "the file is empty" in done.stdout
    assert "get " not in done.stderr
    done = edgesod("data", "check", "mine", "--set", "ecssd", cwd=tmp_path)
    assert done.returncode == 1
    assert "ECSSD has 12 pairs" in done.stderr
    assert "again from https://" in done.stderr
    done = edgesod("data", "check", "mine", "--set", "nosuch", cwd=tmp_path)
    assert done.returncode == 2
    assert "DUT-OMRON" in done.stderr
    assert edgesod("data", "check", "nowhere", cwd=tmp_path).returncode == 3


def test_checking_and_packing_need_no_torch(data: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from edgesod.cli import main; sys.argv = ['edgesod', 'data', *sys.argv[1:]]; main()"
    for words in (["check", "mine"], ["pack", "mine", "--max-mb", "1", "--out", "x.tar"], ["pack", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_what_is_no_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder or tar"):
        check(tmp_path / "nowhere")
