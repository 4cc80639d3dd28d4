"""Which CUDA provider is used, and what to say where none works."""

from __future__ import annotations

import ctypes
import os
import sys
from importlib import import_module
from importlib.util import find_spec

from edgesod.errors import BackendError, UsageError
from edgesod.runtime.cuda.base import Cuda

VARIABLE = "EDGESOD_CUDA"
"""The environment variable that names the provider: ``cuda-python``, ``pycuda`` or ``memory``."""

_INSTALL = "pip install cuda-python; or pip install pycuda, which compiles and needs the CUDA toolkit"

_PROVIDERS = {
    "cuda-python": ("edgesod.runtime.cuda.cuda_python", "CudaPython", "cuda.bindings"),
    "pycuda": ("edgesod.runtime.cuda.pycuda_provider", "PyCuda", "pycuda"),
    "memory": ("edgesod.runtime.cuda.memory", "MemoryCuda", ""),
}
"""By name: module, class, and the package that must be installed. The preferred one first; ``memory`` only when named."""


def choose_provider() -> tuple[str, str]:
    """Return the name of the CUDA provider to use and the reason, in a sentence that starts with it.

    Raises:
        BackendError: The one that ``EDGESOD_CUDA`` names is not installed, or none is.
        UsageError: There is none of that name.
    """
    named = os.environ.get(VARIABLE, "")
    if named:
        if named not in _PROVIDERS:
            raise UsageError(f"{VARIABLE} names no CUDA provider: {named!r}", hint=f"one of: {', '.join(_PROVIDERS)}")
        if not _is_installed(named):
            raise BackendError(f"{named}, which {VARIABLE} asks for, is not installed", hint=f"pip install {named}")
        return named, f"{named}: {VARIABLE} asks for it"
    for name, why in (("cuda-python", "has CUDA graphs"), ("pycuda", "installed; has no CUDA graphs")):
        if _is_installed(name):
            return name, f"{name}: {why}"
    raise BackendError("no CUDA package is installed: neither cuda-python nor pycuda", hint=_INSTALL)


def open_cuda() -> Cuda:
    """Open the first GPU; ``CUDA_VISIBLE_DEVICES`` says which that is.

    Raises:
        BackendError: No provider is installed or loads, or there is no driver or no GPU.
        UsageError: ``EDGESOD_CUDA`` names no provider.
    """
    name = choose_provider()[0]
    module, class_, _ = _PROVIDERS[name]
    try:
        cuda: Cuda = getattr(import_module(module), class_)()
    except (ImportError, OSError) as error:
        raise BackendError(f"{name} does not load: {error}", hint=f"pip install --force-reinstall {name}") from error
    return cuda


def driver_is_installed() -> bool:
    """Say whether an NVIDIA driver is here, asking none of the providers."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _is_installed(name: str) -> bool:
    package = _PROVIDERS[name][2]
    try:
        return not package or find_spec(package) is not None
    except (ImportError, ValueError):  # its parent package is missing, or was put out of reach
        return False
