"""Tensors that lie in the GPU's memory already, whoever made them: ``__cuda_array_interface__`` and DLPack.

Protocols: https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html (version 3) and
https://dmlc.github.io/dlpack/latest/python_spec.html.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgesod.errors import InputError

_CUDA, _CUDA_HOST, _CUDA_MANAGED = 2, 3, 13
_KINDS = {0: "int", 1: "uint", 2: "float", 6: "bool"}


@dataclass(frozen=True)
class DeviceTensor:
    """Where a tensor lies and what it is.

    Attributes:
        pointer: Address of its first element.
        shape: Its shape; it is C-contiguous.
        dtype: NumPy's name of its type.
        needs_sync: Whether its producer may still be writing it, in a stream of its own.
        owner: Keeps it alive.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: str
    needs_sync: bool
    owner: Any


def is_device_tensor(value: Any) -> bool:
    """Say whether a value claims to lie in the memory of a GPU."""
    if hasattr(value, "__cuda_array_interface__"):
        return True
    return hasattr(value, "__dlpack_device__") and int(value.__dlpack_device__()[0]) in (_CUDA, _CUDA_HOST, _CUDA_MANAGED)


def device_tensor(value: Any, stream: int) -> DeviceTensor:
    """Return where a tensor lies, without copying it.

    Args:
        value: For which :func:`is_device_tensor` holds.
        stream: Handle of the stream that will read it; a DLPack producer is asked to have it ready there.

    Raises:
        InputError: It is not C-contiguous, or of a type that no network takes.
    """
    if hasattr(value, "__cuda_array_interface__"):
        facts = value.__cuda_array_interface__
        shape, dtype = tuple(facts["shape"]), np.dtype(facts["typestr"])
        strides = facts.get("strides")
        if strides is not None:
            _require_contiguous(shape, tuple(size // dtype.itemsize for size in strides))
        return DeviceTensor(facts["data"][0], shape, dtype.name, facts.get("stream") is not None, value)
    capsule = value.__dlpack__(stream=stream)
    tensor = _read(capsule)
    shape = tuple(tensor.shape[k] for k in range(tensor.ndim))
    if tensor.strides:
        _require_contiguous(shape, tuple(tensor.strides[k] for k in range(tensor.ndim)))
    kind = _KINDS.get(tensor.code)
    if kind is None or tensor.lanes != 1:
        raise InputError(f"a DLPack tensor of type code {tensor.code} with {tensor.lanes} lanes is nothing a network takes")
    dtype_name = "bool" if kind == "bool" else f"{kind}{tensor.bits}"
    # the capsule is left unconsumed: when it goes, it frees what it holds
    return DeviceTensor((tensor.data or 0) + tensor.byte_offset, shape, dtype_name, False, (value, capsule))


class _DLTensor(ctypes.Structure):
    """What a ``DLManagedTensor`` begins with; a producer makes one where it is not asked for a newer version."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def _read(capsule: Any) -> Any:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.cast(get(capsule, b"dltensor"), ctypes.POINTER(_DLTensor)).contents


def _require_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != expected:
            raise InputError(f"a tensor in the GPU's memory has to be C-contiguous, got strides {strides} for {shape}")
        expected *= size
