"""Work on the pictures of a set in several threads, a few in memory at a time; OpenCV decodes and encodes without Python's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from edgesod.threads import usable_cpus

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_ahead(work: Callable[[_Item], _Result], items: Iterable[_Item], threads: int | None = None) -> Iterator[_Result]:
    """Yield ``work(item)`` in the order of ``items``, never more than a few results ahead of who asks for them.

    Args:
        work: Called in other threads; what it raises is raised here.
        items: Taken from as results are asked for.
        threads: ``None`` for one per CPU that may be used.
    """
    threads = threads or usable_cpus()
    waiting = deque[Future[_Result]]()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 4 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:  # whoever asked has stopped, or one of them failed
                future.cancel()
