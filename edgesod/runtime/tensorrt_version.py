"""Which TensorRT is here, whether it will do, and what to say where not.

TensorRT is imported within functions only, after :func:`require_tensorrt`::

    require_tensorrt(cuda)
    import tensorrt as trt

What differs between versions is branched on by the constants below, and by nothing else. They are worked out when they are
asked for; a type checker is told their values instead (mypy's ``--always-true`` and ``--always-false``) and so sees one
version's branch at a time.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from edgesod.errors import BackendError
from edgesod.runtime.cuda import Cuda

if TYPE_CHECKING:
    TRT_GE_86: bool
    TRT_GE_100: bool
    TRT_GE_11: bool

_CONSTANTS = {"TRT_GE_86": (8, 6), "TRT_GE_100": (10, 0), "TRT_GE_11": (11, 0)}

OLDEST = (8, 5)
"""The first with named tensors (``num_io_tensors``, ``set_tensor_address``, ``execute_async_v3``)."""

_L4T = Path("/etc/nv_tegra_release")
_JETPACK_5 = "# R35 "
_INSTALL = "pip install tensorrt cuda-python"
_INSTALL_ON_JETSON = (
    "sudo apt install nvidia-jetpack, then make the environment with `python3 -m venv --system-site-packages`: on a Jetson, "
    "TensorRT comes with JetPack and not from pip"
)


def __getattr__(name: str) -> bool:
    if name in _CONSTANTS:
        return version_number(tensorrt_version()) >= _CONSTANTS[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def require_tensorrt(cuda: Cuda) -> str:
    """Import TensorRT and return its version; call it before every use.

    Args:
        cuda: An open GPU. Without one, TensorRT 11 hands out objects whose use is a segmentation fault, so that no error can
            be caught: whoever has none to give may not touch TensorRT.

    Raises:
        BackendError: TensorRT is not installed, does not load, or is older than 8.5.
    """
    cuda.device_info()  # fails on one that was closed
    require_installed()
    try:
        version = str(import_module("tensorrt").__version__)
    except (ImportError, OSError, AttributeError) as error:
        raise BackendError(f"TensorRT does not load: {error}", hint=f"reinstall it: {_how_to_install()}") from error
    if version_number(version) < OLDEST:
        raise BackendError(f"TensorRT {version} is too old: edgesod needs 8.5 or later", hint=f"update it: {_how_to_install()}")
    return version


def require_installed() -> None:
    """Raise unless there is a TensorRT to import, without importing it.

    Raises:
        BackendError: It is not installed; or this is JetPack 5, whose TensorRT is for Python 3.8.
    """
    if _is_installed():
        return
    if is_jetpack_5():
        raise BackendError(
            "this is JetPack 5, whose TensorRT is for Python 3.8; edgesod needs Python 3.10 or later",
            hint="update the board to JetPack 6 or later",
        )
    raise BackendError("TensorRT is not installed", hint=_how_to_install())


def tensorrt_version() -> str:
    """Return ``tensorrt.__version__``, after :func:`require_tensorrt`."""
    return str(import_module("tensorrt").__version__)


def is_jetpack_5() -> bool:
    """Say whether this is a Jetson with JetPack 5."""
    return _l4t().startswith(_JETPACK_5)


def _is_installed() -> bool:
    if "tensorrt" in sys.modules:
        return sys.modules["tensorrt"] is not None
    return find_spec("tensorrt") is not None


def _how_to_install() -> str:
    return _INSTALL_ON_JETSON if _l4t() else _INSTALL


def _l4t() -> str:
    try:
        return _L4T.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def version_number(version: str) -> tuple[int, int]:
    """Return major and minor of ``tensorrt.__version__``."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
