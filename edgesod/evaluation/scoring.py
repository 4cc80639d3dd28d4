"""Score a folder of saliency maps, or a stream of predictions, against masks.

Both stretch each map to [0, 1] by default, as every published evaluation does; give ``stretch=False`` to judge a network
the way a stream shows it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.errors import InputError
from edgesod.evaluation.metrics import SodScorer
from edgesod.evaluation.pairs import Place, Places, find_masks, places_of
from edgesod.processing.resize import resize_image
from edgesod.threads import usable_cpus

_SHARE = 16  # pictures that travel to a worker at a time


def accumulate_folder(
    maps_dir: str | Path,
    masks_dir: Places,
    *,
    stems: Sequence[str] | None = None,
    stretch: bool = True,
    full: bool = True,
    jobs: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> SodScorer:
    """Return a scorer that has seen a folder's maps, for its scores and its curves.

    A map of another size than its mask is brought to the mask's, bilinearly. Maps without a mask are left alone. The
    result does not depend on ``jobs``.

    Args:
        maps_dir: Folder of greyscale maps, 8 bits.
        masks_dir: Folder of masks, or a set as :class:`EvaluationSet` reads it; several where it comes in parts.
        stems: Those to score, all of them stems of masks; every mask's where ``None``.
        stretch: Min–max stretch each map.
        full: Also compute the weighted F, the S- and the E-measure.
        jobs: Processes; 1 is this one alone, ``None`` one per core. A script that asks for several has to guard its
            start with ``if __name__ == "__main__"``, since they are spawned.
        on_progress: Called in this thread with the numbers of pictures done and in all.

    Raises:
        InputError: A folder holds no image, a mask has no map, or a file cannot be decoded.
    """
    maps, masks = find_masks(maps_dir), find_masks(*places_of(masks_dir))
    if stems is not None:
        masks = {stem: masks[stem] for stem in stems}
    if missing := sorted(masks.keys() - maps.keys()):
        raise InputError(
            f"{len(missing)} of {len(masks)} masks have no map in {maps_dir}, such as {missing[0]!r}",
            hint="write one map per image, under the image's own stem",
        )
    pairs = [(maps[stem], masks[stem]) for stem in sorted(masks)]
    shares = [(pairs[i : i + _SHARE], stretch, full) for i in range(0, len(pairs), _SHARE)]
    jobs = min(jobs or usable_cpus(), len(shares))
    if jobs == 1:
        return _merge(map(_score_share, shares), len(pairs), full, on_progress)
    # spawned, not forked: the caller may run threads whose locks a fork would copy
    with ProcessPoolExecutor(jobs, get_context("spawn"), cv2.setNumThreads, (1,)) as pool:
        return _merge(pool.map(_score_share, shares), len(pairs), full, on_progress)


def accumulate_predictions(
    pairs: Iterable[tuple[NDArray[np.float32] | NDArray[np.uint8], NDArray[np.uint8]]],
    *,
    stretch: bool = True,
    full: bool = True,
    on_scored: Callable[[int], None] | None = None,
) -> SodScorer:
    """Return a scorer that has seen maps as they come from a network.

    Other threads score while the caller's computes the next map, so that both cores have work. A few maps per thread are
    held at a time, however many there are, and they are added up in their order.

    Args:
        pairs: Map, float in [0, 1] or uint8, and truth, uint8, both ``(H, W)`` of the same size.
        stretch: Min–max stretch each map.
        full: Also compute the weighted F, the S- and the E-measure.
        on_scored: Called in this thread with the number of maps scored so far.
    """
    scorer, waiting = SodScorer(full=full), deque[Future[SodScorer]]()

    def merge_first() -> None:
        scorer.merge(waiting.popleft().result())
        if on_scored:
            on_scored(scorer.n)

    threads = usable_cpus()
    with ThreadPoolExecutor(threads) as pool:
        for saliency, truth in pairs:
            waiting.append(pool.submit(_score_one, saliency, truth, stretch, full))
            if len(waiting) > 2 * threads:
                merge_first()
        while waiting:
            merge_first()
    return scorer


def _score_one(
    saliency: NDArray[np.float32] | NDArray[np.uint8], truth: NDArray[np.uint8], stretch: bool, full: bool
) -> SodScorer:
    scorer = SodScorer(full=full)
    scorer.add(saliency, truth, stretch=stretch)
    return scorer


def _score_share(share: tuple[list[tuple[Place, Place]], bool, bool]) -> SodScorer:
    pairs, stretch, full = share
    scorer = SodScorer(full=full)
    for map_file, mask_file in pairs:
        truth = mask_file.read_grey()
        height, width = truth.shape
        scorer.add(resize_image(map_file.read_grey(), (height, width), "linear"), truth, stretch=stretch)
    return scorer


def _merge(parts: Iterable[SodScorer], total: int, full: bool, on_progress: Callable[[int, int], None] | None) -> SodScorer:
    scorer = SodScorer(full=full)
    for part in parts:
        scorer.merge(part)
        if on_progress:
            on_progress(scorer.n, total)
    return scorer
