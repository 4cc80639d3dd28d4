"""Small sets of image–mask pairs, cut from scikit-image's photographs."""

from __future__ import annotations

import tarfile
from pathlib import Path

import cv2
import numpy as np
from skimage import data


def split_pairs(place: Path, into: Path) -> list[Path]:
    """Copy every other pair of a set into a folder and the rest into a tar, both in ``into``; return the two."""
    into.mkdir()
    folder, tar = into / "half-0", into / "half-1.tar"
    with tarfile.open(tar, "w") as packed:
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True)
            for k, path in enumerate(sorted((place / kind).iterdir())):
                if k % 2:
                    packed.add(path, f"half-1/{kind}/{path.name}")
                else:
                    (folder / kind / path.name).write_bytes(path.read_bytes())
    return [folder, tar]


def write_pairs(folder: Path, n: int, size: int = 48) -> Path:
    """Write ``n`` crops as ``images/*.jpg`` with an ellipse each as ``masks/*.png``; return ``folder``."""
    rng = np.random.default_rng(0)
    photographs = [np.ascontiguousarray(getattr(data, name)()[:, :, ::-1]) for name in ("cat", "coffee", "astronaut", "rocket")]
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for k in range(n):
        photograph = photographs[k % len(photographs)]
        top, left = (int(rng.integers(0, side - 2 * size)) for side in photograph.shape[:2])
        image = cv2.resize(photograph[top : top + 2 * size, left : left + 2 * size], (size, size), interpolation=cv2.INTER_AREA)
        mask = np.zeros((size, size), np.uint8)
        centre = tuple(int(v) for v in rng.integers(size // 3, 2 * size // 3, 2))
        axes = tuple(int(v) for v in rng.integers(size // 6, size // 3, 2))
        cv2.ellipse(mask, centre, axes, 0, 0, 360, 255, -1)
        image[mask > 0] = 255 - image[mask > 0]
        cv2.imwrite(str(folder / "images" / f"{k:03d}.jpg"), image)
        cv2.imwrite(str(folder / "masks" / f"{k:03d}.png"), mask)
    return folder
