"""The compiled kernels: made from the C files beside this one by the system's C compiler when first asked for, and kept."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import torch

from edgesod import assets
from edgesod.errors import EdgesodError
from edgesod.files import replacing

log = logging.getLogger("edgesod.trainer")

_FOLDER = Path(__file__).parent
_FLAGS = ("-O3", "-march=native", "-fopenmp", "-fPIC")
_TORCH = Path(torch.__file__).parent / "lib"
_POINTER, _LONG, _DOUBLE, _INT = ctypes.c_void_p, ctypes.c_long, ctypes.c_double, ctypes.c_int
_ARGUMENTS = {
    "norm_relu": (*[_POINTER] * 6, _DOUBLE, _DOUBLE, _LONG, _LONG, _INT, _POINTER, _POINTER),
    "norm_relu_backward": (_POINTER, _POINTER, _LONG, _POINTER, _LONG, _LONG, _INT, _POINTER, _POINTER, _POINTER),
    "max_pool": (_POINTER, _LONG, _LONG, _LONG, _INT, _POINTER),
    "max_pool_backward": (_POINTER, _POINTER, _LONG, _LONG, _LONG, _LONG, _INT, _POINTER),
    "concat_upsampled": (_POINTER, _POINTER, _LONG, _LONG, _LONG, _LONG, _LONG, _INT, _POINTER),
    "upsample_backward": (_POINTER, _LONG, _LONG, _LONG, _LONG, _LONG, _INT, _POINTER),
}


# types of tensors that there are kernels for, each with the suffix of their names and what the compiler is told
TYPES: dict[torch.dtype, tuple[str, tuple[str, ...]]] = {torch.float32: ("", ()), torch.bfloat16: ("_bf16", ("-DBF16",))}

Kernels = Mapping[torch.dtype, SimpleNamespace]
"""The functions of ``_ARGUMENTS`` for tensors of each type; bfloat16's are missing where the compiler is too old for it."""


@cache
def library() -> Kernels | None:
    """Return the kernels, ``None`` where they cannot be had, which the log says; torch's own operators do the same, more slowly.

    They need Linux and a C compiler that knows OpenMP: ``$CC`` (such as ``ccache gcc``), else ``cc``. ``EDGESOD_KERNELS=0`` does
    without.
    """
    if sys.platform != "linux" or os.environ.get("EDGESOD_KERNELS") == "0":
        return None
    compiler = os.environ.get("CC", "").split() or ["cc"]
    if shutil.which(compiler[0]) is None:
        log.warning("training without compiled kernels: there is no C compiler %s", compiler[0])
        return None
    try:
        return _load(_compiled(compiler))
    except (EdgesodError, OSError, subprocess.SubprocessError) as error:  # no compiler that works, or no place to write
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip().splitlines()
        log.warning("training without compiled kernels: %s", "; ".join([str(error), *said[:1]]))
        return None


def _compiled(compiler: list[str]) -> Path:
    """Return the library's file, compiled where there is none yet of this source, compiler, torch and processor."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=True).stdout
    machine = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    features = sorted(line for line in machine.splitlines() if line.startswith(("flags", "Features", "model", "CPU ")))
    sources = sorted(_FOLDER.glob("*.c"))
    texts = [path.read_bytes() for path in (*sources, _FOLDER / "lanes.h")]
    made_of = (
        *texts,
        version,
        " ".join((*compiler[1:], *_FLAGS)).encode(),
        str(_TORCH).encode(),
        "\n".join(features).encode(),
        repr(TYPES).encode(),
    )
    name = hashlib.sha256(b"\0".join(made_of)).hexdigest()[:16]
    target = assets.cache() / "kernels" / f"{name}.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as place:
            _compile(compiler, sources, place)
    return target


def _compile(compiler: list[str], sources: list[Path], target: Path) -> None:
    with TemporaryDirectory() as folder:
        objects = []
        for suffix, flags in TYPES.values():
            made = [Path(folder) / f"{source.stem}{suffix}.o" for source in sources]
            try:
                for source, compiled in zip(sources, made, strict=True):
                    _run(*compiler, *_FLAGS, *flags, "-c", source, "-o", compiled)
            except subprocess.CalledProcessError:
                if not flags:
                    raise
                continue  # GCC before 9 cannot convert a vector's type, which bfloat16 takes: there it is left to torch
            objects += made
        # without -fopenmp, so that the threads are torch's own: two teams would fight for the cores
        _run(*compiler, "-shared", *objects, "-o", target, f"-L{_TORCH}", "-Wl,--no-as-needed", "-ltorch_cpu")


def _run(*command: str | Path) -> None:
    subprocess.run(command, capture_output=True, check=True, timeout=120)


def _load(path: Path) -> Kernels:
    loaded = ctypes.CDLL(str(path))
    kernels = {}
    for kind, (suffix, _) in TYPES.items():
        if all(hasattr(loaded, name + suffix) for name in _ARGUMENTS):
            kernels[kind] = SimpleNamespace(**{name: getattr(loaded, name + suffix) for name in _ARGUMENTS})
            for name, arguments in _ARGUMENTS.items():
                getattr(loaded, name + suffix).argtypes = arguments
    return kernels
