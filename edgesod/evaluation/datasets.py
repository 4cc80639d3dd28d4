"""The well-known sets: how many pairs each has, where its pictures come from, and in which folders its download puts them.

:mod:`edgesod.evaluation.pairs` reads any of these layouts, at any depth of a folder or a tar, and so any other set that is laid
out like one of them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath


@dataclass(frozen=True)
class Half:
    """Where the images, or the masks, of a layout are: ``folder/*.suffix``.

    ``*`` stands for anything but ``/`` and becomes part of the stem, joined by a hyphen; ``{a,b}`` for one of several, best
    first where it is a suffix; case does not matter.
    """

    glob: str

    @cached_property
    def suffixes(self) -> tuple[str, ...]:
        """In lower case with the dot, best first."""
        return tuple(f".{suffix}" for suffix in self.glob.rpartition("/*.")[2].strip("{}").split(","))

    def key_of(self, folder: str) -> str | None:
        """Return what a folder adds to the stems of its files, ``None`` where they do not belong here."""
        found = self._folder.search(folder)
        return None if found is None else "".join(f"{part}-" for part in found.groups())

    @cached_property
    def _folder(self) -> re.Pattern[str]:
        parts = {"*": "([^/]*)", "{": "(?:", "}": ")", ",": "|"}
        pattern = "".join(parts.get(c, re.escape(c)) for c in self.glob.rpartition("/*.")[0])
        return re.compile(f"(?:^|/){pattern}$", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """How a set is spread over folders: globs of its images and of its masks."""

    images: Half
    masks: Half


def _layout(images: str, masks: str) -> Layout:
    return Layout(Half(images), Half(masks))


@dataclass(frozen=True)
class Dataset:
    """What is known about a published set.

    Attributes:
        name: As the papers write it.
        counts: How many pairs it has; several where its releases differ, none where that is not judged.
        layouts: In which folders its download, and the copies that go around, have them.
        homepage: Where to get it.
        note: Whose pictures they are, where its authors say. None of these sets comes with a licence for its pictures: use
            them for research, and ship none.
        aliases: Other names of its folders, in lower case without punctuation.
    """

    name: str
    counts: tuple[int, ...]
    layouts: tuple[Layout, ...]
    homepage: str
    note: str = ""
    aliases: tuple[str, ...] = ()


OWN = _layout(
    "{images,image,imgs,img}/*.{jpg,jpeg,png,bmp}", "{masks,mask,gt,gts,ground_truth_mask,gt_masks}/*.{png,bmp,jpg,jpeg}"
)
"""``images/`` and ``masks/``, as :mod:`trainer.data.pack` writes them, or what others call the two."""

_ONE_FOLDER = _layout("imgs/*.{jpg,jpeg}", "imgs/*.{png,bmp}")  # photographs as JPEG, masks as PNG of the same stem

DATASETS = (
    Dataset(
        "DUTS-TR",
        (10_553,),
        (_layout("DUTS-TR-Image/*.jpg", "DUTS-TR-Mask/*.png"), OWN),
        "http://saliencydetection.net/duts/",
        "pictures of ImageNet DET",
        ("dutstrimage",),
    ),
    Dataset(
        "DUTS-TE",
        (5_019,),
        (_layout("DUTS-TE-Image/*.jpg", "DUTS-TE-Mask/*.png"), OWN),
        "http://saliencydetection.net/duts/",
        "pictures of ImageNet DET and SUN",
        ("dutsteimage",),
    ),
    Dataset(
        "DUT-OMRON",
        (5_168,),
        (_layout("DUT-OMRON-image/*.jpg", "pixelwiseGT-new-PNG/*.png"), OWN),
        "http://saliencydetection.net/dut-omron/",
        aliases=("dutomronimage",),
    ),
    Dataset(
        "MSRA-10K", (10_000,), (_ONE_FOLDER, OWN), "https://mmcheng.net/msra10k/", aliases=("msra10kimgsgt", "msra10kimagesgt")
    ),
    Dataset(
        "PASCAL-S",
        (850,),
        (_layout("imgs/pascal/*.jpg", "masks/pascal/*.png"), _ONE_FOLDER, OWN),
        "http://cbs.ic.gatech.edu/salobj/",
        "pictures of PASCAL VOC 2010",
        ("pascal", "salobj"),
    ),
    Dataset("HKU-IS", (4_445, 4_447), (OWN,), "https://i.cs.hku.hk/~gbli/deep_saliency.html"),
    Dataset("ECSSD", (1_000,), (OWN, _ONE_FOLDER), "https://www.cse.cuhk.edu.hk/leojia/projects/hsaliency/dataset.html"),
    Dataset(
        "SOD",
        (300,),
        (OWN, _ONE_FOLDER),
        "https://www.elderlab.yorku.ca/resources/salient-objects-dataset-sod/",
        "pictures of the Berkeley segmentation data set; as published it has outlines, the copies that go around masks",
    ),
    Dataset("Judd", (900,), (OWN, _ONE_FOLDER), "https://arxiv.org/abs/1412.5027", aliases=("judda", "judddb")),
    Dataset(
        "THUR-15K",
        (),
        (_layout("*/Src/*.jpg", "*/Src/*.png"), _layout("*/Src/*.jpg", "*/GT/*.png"), OWN),
        "https://mmcheng.net/gsal/",
        "6,233 of its 15,531 pictures have a mask",
        ("thur15000", "thur"),
    ),
    Dataset(
        "SOC",
        (),
        (OWN,),
        "http://dpfan.net/SOCBenchmark/",
        "half of its pictures show nothing salient, and their masks are black",
        ("soc6krelease", "soc6k"),
    ),
    Dataset(
        "SED2",
        (),
        (OWN, _ONE_FOLDER),
        "https://www.wisdom.weizmann.ac.il/~vision/Seg_Evaluation_DB/",
        "as published it has three people's colourings of each picture, the copies that go around masks",
    ),
)

LAYOUTS = tuple(dict.fromkeys((OWN, *(layout for dataset in DATASETS for layout in dataset.layouts))))
"""Every layout once."""


def find_dataset(name: str) -> Dataset | None:
    """Return the set of a name, whatever its case and punctuation; ``None`` where it is not one of :data:`DATASETS`."""
    plain = _plain(name)
    return next((known for known in DATASETS if plain == _plain(known.name) or plain in known.aliases), None)


def dataset_of(folder: str | PurePosixPath) -> Dataset | None:
    """Return the set that a folder of pictures belongs to by its name or, failing that, by those it lies in."""
    return next(filter(None, map(find_dataset, reversed(PurePosixPath(folder).parts))), None)


def mask_folders() -> frozenset[str]:
    """Return the names of folders, in lower case, that :data:`LAYOUTS` keep nothing but masks in."""
    return frozenset(_names(layout.masks for layout in LAYOUTS)) - frozenset(_names(layout.images for layout in LAYOUTS))


def _names(halves: Iterable[Half]) -> Iterable[str]:
    for half in halves:
        last = half.glob.rpartition("/*.")[0].rpartition("/")[2]
        yield from last.lower().strip("{}").split(",")


def _plain(name: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKC", name).lower() if c.isalnum())
