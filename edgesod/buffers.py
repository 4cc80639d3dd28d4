"""Arrays of a picture's size whose memory is used again, because touching new memory costs more than filling it.

An allocator hands large blocks back to the system as soon as they are free, and each new one is then mapped and zeroed page by
page: at 720p that takes several times as long as the copy or the resize that fills it.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class BufferPool(threading.local):
    """Hand out arrays, each in memory that nothing else looks at.

    Memory is used again once the array that was handed out and every view of it are gone, so whoever keeps one (a mask, a
    picture a sink still encodes) keeps it whole. Each thread that uses a pool has blocks of its own, so that none waits for
    another, nor a forked process for a thread it has not got; arrays may go to other threads all the same.

    Args:
        most: Blocks to remember per thread. Of the rest, whoever holds an array is the only owner.
    """

    def __init__(self, most: int = 32) -> None:
        self._blocks: deque[tuple[bytearray, weakref.ref[NDArray[Any]]]] = deque(maxlen=most)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike = np.uint8) -> NDArray[Any]:
        """Return an uninitialised C-contiguous array that shares memory with no other."""
        num_bytes = prod(shape) * np.dtype(dtype).itemsize
        block = self._take(num_bytes)
        # over bytes and not over an array: NumPy bases a view of a view on the array at the bottom of the chain, and this one
        # has to be that array for the weak reference to outlive no view of it
        array: NDArray[Any] = np.ndarray(shape, dtype, block)
        self._blocks.append((block, weakref.ref(array)))
        return array

    def _take(self, num_bytes: int) -> bytearray:
        """Take a free block of that size out of the list; those unused for longest fall out of it."""
        for k in reversed(range(len(self._blocks))):  # the one used last is the likeliest to be in a cache
            block, user = self._blocks[k]
            if len(block) == num_bytes and user() is None:
                del self._blocks[k]
                return block
        return bytearray(num_bytes)


POOL = BufferPool()
"""The one that pictures and maps at frame size come from."""
