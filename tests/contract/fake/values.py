"""Dims and IHostMemory."""

from __future__ import annotations

from typing import Any

from .property import Default


class Dims:
    MAX_DIMS = 8

    def __init__(self, shape: Any = ()) -> None:
        if len(shape) > 8:
            raise ValueError(f"Input length {len(shape)}. Max expected length is 8")
        self._sizes = [int(size) for size in shape]

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, index: Any) -> Any:
        return tuple(self._sizes[index]) if isinstance(index, slice) else self._sizes[index]

    def __setitem__(self, index: int, value: int) -> None:
        self._sizes[index] = value

    def __repr__(self) -> str:
        return repr(tuple(self._sizes))

    def __eq__(self, other: object) -> bool:
        return tuple(self._sizes) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self._sizes))


class IHostMemory(bytearray):
    """A bytearray, because that is how a Python class gets the buffer protocol; nothing else of that can be used."""

    dtype = Default("trt.DataType.INT8")

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name not in ("nbytes", "dtype"):
            raise AttributeError(f"'tensorrt.tensorrt.IHostMemory' object has no attribute '{name}'")
        return object.__getattribute__(self, name)

    @property
    def nbytes(self) -> int:
        return memoryview(self).nbytes

    def _refuse(self, *args: Any) -> Any:
        raise TypeError("IHostMemory has only a buffer: no length, no items, no operators")

    __len__ = __getitem__ = __iter__ = __add__ = __contains__ = _refuse
