"""Tensors that lie in the GPU's memory already, whoever made them: ``__cuda_array_interface__`` and DLPack.

Protocols: https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html (version 3) and
https://dmlc.github.io/dlpack/latest/python_spec.html.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
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
    """Say whether a value claims to lie in the memory of a GPU, or page-locked where a GPU reads it.

    Raises:
        InputError: Its producer does not hand it out, such as torch a tensor that requires a gradient.
    """
    if _interface(value) is not None:
        return True
    return _device(value)[0] in (_CUDA, _CUDA_HOST, _CUDA_MANAGED)


def device_tensor(value: Any, stream: int) -> DeviceTensor:
    """Return where a tensor lies, without copying it.

    Args:
        value: For which :func:`is_device_tensor` holds.
        stream: Handle of the stream that will read it; a DLPack producer is asked to have it ready there.

    Raises:
        InputError: It is not C-contiguous, of a type that no network takes, on another GPU than the first, or its producer
            does not hand it out.
    """
    kind, index = _device(value)
    if kind == _CUDA and index != 0:
        raise InputError(f"a tensor lies on GPU {index}; edgesod uses the first one", hint="move it there: tensor.to('cuda:0')")
    facts = _interface(value)
    if facts is not None:
        shape, dtype = tuple(facts["shape"]), np.dtype(facts["typestr"])
        strides = facts.get("strides")
        if strides is not None:
            _require_contiguous(shape, tuple(size // dtype.itemsize for size in strides))
        # before version 3 nothing is said about streams, and torch says version 2
        needs_sync = facts.get("version", 0) < 3 or facts.get("stream") is not None
        return DeviceTensor(facts["data"][0], shape, dtype.name, needs_sync, value)
    on_host = kind == _CUDA_HOST
    with _handing_out(value):
        capsule = value.__dlpack__(stream=None if on_host else stream)  # memory of the host has no stream
    tensor = _read(capsule)
    shape = tuple(tensor.shape[k] for k in range(tensor.ndim))
    if tensor.strides:
        _require_contiguous(shape, tuple(tensor.strides[k] for k in range(tensor.ndim)))
    type_name = _KINDS.get(tensor.code)
    if type_name is None or tensor.lanes != 1:
        raise InputError(f"a DLPack tensor of type code {tensor.code} with {tensor.lanes} lanes is nothing a network takes")
    dtype_name = "bool" if type_name == "bool" else f"{type_name}{tensor.bits}"
    # the capsule is left unconsumed: when it goes, it frees what it holds
    return DeviceTensor((tensor.data or 0) + tensor.byte_offset, shape, dtype_name, on_host, (value, capsule))


def _interface(value: Any) -> dict[str, Any] | None:
    with _handing_out(value):
        facts: dict[str, Any] | None = getattr(value, "__cuda_array_interface__", None)
        return facts


def _device(value: Any) -> tuple[int, int]:
    """Return DLPack's kind and number of the device a value lies on; zeros where it does not say."""
    if not hasattr(value, "__dlpack_device__"):
        return 0, 0
    with _handing_out(value):
        kind, index = value.__dlpack_device__()
        return int(kind), int(index)


@contextmanager
def _handing_out(value: Any) -> Iterator[None]:
    """Turn what a producer raises while it is asked for a tensor into an error that says what to do."""
    try:
        yield
    except (AssertionError, BufferError, RuntimeError, TypeError, ValueError) as error:
        has_gradient = getattr(value, "requires_grad", False)
        raise InputError(
            f"a {type(value).__name__} cannot be read where it lies: {error}",
            hint="tensor.detach()" if has_gradient else "give a plain tensor in the GPU's memory, or a NumPy array",
        ) from error


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
