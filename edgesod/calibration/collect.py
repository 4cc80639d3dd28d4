"""Calibrate a network: one pass over images, the range of every tensor, as a table."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from edgesod.files import sha256_of
from edgesod.recipe import Recipe

if TYPE_CHECKING:
    from edgesod.evaluation.pairs import Places

    from .table import CalibrationTable

log = logging.getLogger("edgesod.calibration")


def calibrate(
    onnx_path: str | Path,
    recipe: Recipe,
    images: Places,
    *,
    limit: int = 128,
    threads: int | None = None,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> CalibrationTable:
    """Run a network over images and record the range of each of its activation tensors.

    Args:
        onnx_path: FP32 ONNX with one image input ``(1, 3, H, W)``; the table will belong to this very file.
        recipe: How a picture becomes the input tensor.
        images: Folder or tar of images like the ones the engine will see, at any depth, or several; 32 images are enough,
            more change little.
        limit: Largest number of images, evenly spread over the sorted file names.
        threads: CPU threads; every physical core where ``None``.
        on_progress: Told ``(done, total)`` after each step; an image counts once per group of tensors
            (:func:`~edgesod.calibration.ranges.activation_ranges`).

    Raises:
        InputError: The ONNX or a place cannot be used, or the ONNX takes another size than the recipe's.
        CheckFailed: The network gives a value that is not finite.
    """
    # imported here: onnx and ONNX Runtime cost half a second that `edgesod --help` has no use for
    from .images import CalibrationImages
    from .ranges import activation_ranges
    from .table import CalibrationTable

    pictures = CalibrationImages(images, recipe, limit)
    ranges = activation_ranges(onnx_path, pictures, on_progress, threads=threads)
    silent = [tensor for tensor, by_method in ranges.items() if by_method["minmax"] == (0.0, 0.0)]
    if silent:
        log.warning("%d tensors are zero on every image and will stay in float: %s", len(silent), ", ".join(silent[:5]))
    return CalibrationTable(
        model=recipe.model,
        onnx_sha256=sha256_of(onnx_path),
        size_hw=recipe.size_hw,
        images=pictures.name,
        num_images=pictures.num_read,
        preprocessing=recipe.preprocessing,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        ranges=ranges,
    )
