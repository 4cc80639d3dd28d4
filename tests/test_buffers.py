"""Memory is used again, and never while anybody can still see it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edgesod.buffers import BufferPool

SHAPE = (40, 30, 3)


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_memory_is_used_again() -> None:
    pool = BufferPool()
    first = _address(pool.empty(SHAPE))
    assert _address(pool.empty(SHAPE)) == first
    assert _address(pool.empty((40 * 30 * 3,))) == first
    array = pool.empty((30, 3, 10), np.float32)
    assert (array.dtype, array.shape, array.flags.c_contiguous, array.flags.writeable) == (np.float32, (30, 3, 10), True, True)


@pytest.mark.parametrize(
    "look",
    [
        lambda a: a,
        lambda a: a[3:7],
        lambda a: a.reshape(-1)[::2],
        lambda a: a.view(np.bool_).T,
        memoryview,
        lambda a: [iter(a)],
    ],
    ids=["itself", "rows", "reshaped", "another type", "memoryview", "iterator"],
)
def test_memory_somebody_looks_at_is_left_alone(look) -> None:
    pool = BufferPool()
    array = pool.empty(SHAPE)
    array[:] = 7
    kept = look(array)
    first = _address(array)
    del array
    others = [pool.empty(SHAPE) for _ in range(4)]
    assert first not in [_address(other) for other in others]
    del kept
    assert _address(pool.empty(SHAPE)) == first


def test_what_falls_out_of_the_pool_stays_whole() -> None:
    pool = BufferPool(most=2)
    arrays = [pool.empty(SHAPE) for _ in range(6)]
    for k, array in enumerate(arrays):
        array[:] = k
    assert [int(array[5, 5, 1]) for array in arrays] == list(range(6))


def test_an_array_from_another_thread_stays_whole() -> None:
    pool = BufferPool()
    with ThreadPoolExecutor(1) as thread:
        kept = thread.submit(pool.empty, SHAPE).result()
        kept[:] = 7
        others = [thread.submit(pool.empty, SHAPE).result() for _ in range(3)]
        assert not any(np.shares_memory(kept, other) for other in (*others, pool.empty(SHAPE)))
        address = _address(kept)
        del kept, others
        assert address in [_address(array) for array in [thread.submit(pool.empty, SHAPE).result() for _ in range(6)]]


def test_threads_never_share() -> None:
    pool = BufferPool()

    def fill(k: int) -> bool:
        for _ in range(300):
            array = pool.empty((64,))
            array[:] = k
            if not (array == k).all():
                return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(fill, range(4)))
