"""Each well-known set is read from the folders its download makes, and counted as its authors count it."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgesod.evaluation.datasets import DATASETS, dataset_of, find_dataset
from edgesod.evaluation.pairs import MASK_DIRS, EvaluationSet, find_masks
from edgesod.evaluation.published import DATASETS as PUBLISHED

# set → files of one or two pairs as they lie after unpacking: what goes where was read from scripts that use the sets
TREES = [
    ("DUTS-TR", "DUTS/DUTS-TR/DUTS-TR-Image/ILSVRC2012_test_00000004.jpg", "DUTS/DUTS-TR/DUTS-TR-Mask/ILSVRC2012_test_00000004.png"),
    ("DUTS-TE", "DUTS-TE/DUTS-TE-Image/sun_aaajuldidvlcyzhv.jpg", "DUTS-TE/DUTS-TE-Mask/sun_aaajuldidvlcyzhv.png"),
    ("DUT-OMRON", "DUT-OMRON/DUT-OMRON-image/im005.jpg", "DUT-OMRON/pixelwiseGT-new-PNG/im005.png"),
    ("DUT-OMRON", "omron/DUT-OMRON-image/DUT-OMRON-image/im005.jpg", "omron/DUT-OMRON-gt-pixelwise.zip/pixelwiseGT-new-PNG/im005.png"),
    ("MSRA-10K", "MSRA10K_Imgs_GT/Imgs/100.jpg", "MSRA10K_Imgs_GT/Imgs/100.png"),
    ("MSRA-10K", "MSRA10K/images/100.jpg", "MSRA10K/gt_masks/100.png"),
    ("PASCAL-S", "salObj/datasets/imgs/pascal/1.jpg", "salObj/datasets/masks/pascal/1.png"),
    ("PASCAL-S", "PASCAL-S/Imgs/1.jpg", "PASCAL-S/Imgs/1.png"),
    ("HKU-IS", "HKU-IS/imgs/0004.png", "HKU-IS/gt/0004.png"),
    ("ECSSD", "ECSSD/images/0001.jpg", "ECSSD/ground_truth_mask/0001.png"),
    ("SOD", "SOD/images/2018.jpg", "SOD/GT/2018.png"),
    ("SOD", "SOD/Imgs/2018.jpg", "SOD/Imgs/2018.png"),
    ("Judd", "Judd/Img/i05june05_static_street_boston_p1010764.jpg", "Judd/GT/i05june05_static_street_boston_p1010764.png"),
    ("THUR-15K", "THUR15000/{Butterfly,Giraffe}/Src/12.jpg", "THUR15000/{Butterfly,Giraffe}/Src/12.png"),
    ("THUR-15K", "THUR15000/{Butterfly,Giraffe}/Src/12.jpg", "THUR15000/{Butterfly,Giraffe}/GT/12.png"),
    ("SOC", "SOC6K_Release/{TrainSet/Imgs/COCO_9,ValSet/Imgs/COCO_30}.jpg", "SOC6K_Release/{TrainSet/gt/COCO_9,ValSet/gt/COCO_30}.png"),
    ("SED2", "SED2/Img/b13alicia.png", "SED2/GT/b13alicia.png"),
]  # fmt: skip


def _write(root: Path, path: str, value: int) -> None:
    before, _, rest = path.partition("{")
    alternatives, _, after = rest.partition("}")
    for word in alternatives.split(",") if rest else [""]:
        target = root / (before + word + after)
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), np.full((6, 8, 3), value, np.uint8))


@pytest.mark.parametrize(("name", "image", "mask"), TREES, ids=lambda value: value.replace("/", "-"))
@pytest.mark.parametrize("is_above", [True, False])
def test_usual_layouts_are_read(tmp_path: Path, name: str, image: str, mask: str, is_above: bool) -> None:
    _write(tmp_path, image, 200)
    _write(tmp_path, mask, 0)
    place = tmp_path if is_above else next(tmp_path.iterdir())
    pairs = EvaluationSet(place)
    assert len(pairs) == (2 if "{" in image else 1)
    assert pairs.orphans == []
    for stem in pairs.stems:
        seen, truth = pairs.read(stem)
        assert seen.min() > 190
        assert truth.max() == 0
        found = dataset_of(pairs.images[stem].folder)
        assert found is not None
        assert found.name == name
    assert find_masks(place).keys() == pairs.masks.keys()


def test_every_set_has_a_tree_and_known_counts() -> None:
    assert {name for name, _, _ in TREES} == {known.name for known in DATASETS}
    counts = {known.name: known.counts for known in DATASETS}
    assert counts == {
        "SOD": (300,), "DUT-OMRON": (5168,), "MSRA-10K": (10_000,), "PASCAL-S": (850,), "HKU-IS": (4445, 4447),
        "DUTS-TR": (10_553,), "DUTS-TE": (5019,), "ECSSD": (1000,), "Judd": (900,), "THUR-15K": (), "SOC": (), "SED2": (),
    }  # fmt: skip
    assert set(PUBLISHED) <= counts.keys()


def test_several_sets_in_one_folder_are_read_together(tmp_path: Path) -> None:
    chosen = [tree for tree in TREES if tree[0] in ("DUTS-TR", "MSRA-10K", "PASCAL-S", "ECSSD")]
    for name, image, mask in chosen[:2] + chosen[3:4] + chosen[-1:]:
        _write(tmp_path / name, image, 200)
        _write(tmp_path / name, mask, 0)
    pairs = EvaluationSet(tmp_path)
    assert pairs.stems == ["0001", "1", "100", "ILSVRC2012_test_00000004"]
    names = [found.name for stem in pairs.stems if (found := dataset_of(pairs.images[stem].folder))]
    assert names == ["ECSSD", "PASCAL-S", "MSRA-10K", "DUTS-TR"]


def test_names_are_known_however_they_are_written() -> None:
    for name, expected in {"duts_tr": "DUTS-TR", "ECSSD": "ECSSD", "thur15k": "THUR-15K", "MSRA10K": "MSRA-10K"}.items():
        found = find_dataset(name)
        assert found is not None
        assert found.name == expected
    assert find_dataset("images") is None
    assert dataset_of("data/sod/mine/images") == find_dataset("SOD")
    assert dataset_of("mine/images") is None


def test_a_name_further_up_than_what_was_given_says_nothing(tmp_path: Path) -> None:
    for kind, value in zip(("images/1.jpg", "masks/1.png"), cycle((9,)), strict=False):
        _write(tmp_path / "SOD" / "mine", kind, value)
    pairs = EvaluationSet(tmp_path / "SOD" / "mine")
    assert dataset_of(pairs.images["1"].folder) is None


def test_folders_of_masks_are_told_from_folders_of_images() -> None:
    assert {"masks", "gt", "ground_truth_mask", "duts-tr-mask", "pixelwisegt-new-png"} <= MASK_DIRS
    assert MASK_DIRS.isdisjoint({"images", "imgs", "img", "src", "pascal", "duts-tr-image"})
