"""Where a run computes: the device, the precision, and how many processes share the work."""

from __future__ import annotations

import ctypes
import os
import sys

import torch
from lightning_fabric import Fabric

from edgesod.errors import BackendError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_NEVER_MAPPED = (1 << 30, 1 << 25)  # bytes; older glibc take no more than 32 MiB
_FABRIC_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def make_fabric(precision: str) -> Fabric:
    """Return a launched Fabric: one process on the first GPU or the CPU, or as many as ``torchrun`` started.

    Args:
        precision: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``.

    Raises:
        BackendError: fp16 on a CPU, which has no use for it.
    """
    precision = resolve_precision(precision)
    has_gpu = torch.cuda.is_available()
    if precision == "fp16" and not has_gpu:
        raise BackendError("fp16 training needs a GPU", hint='precision = "auto" in the recipe')
    if not has_gpu:
        _keep_freed_memory()
    processes, here = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    fabric = Fabric(
        accelerator="cuda" if has_gpu else "cpu",
        strategy="ddp" if processes > 1 else "auto",
        devices=here,
        num_nodes=processes // here,
        precision=_FABRIC_PRECISION[precision],  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def resolve_precision(precision: str) -> str:
    """Return what ``"auto"`` means here: bf16 where the hardware multiplies it, else fp32.

    torch runs bf16 on any CPU, but without the instructions it is emulated and takes three times as long as fp32.
    """
    if precision != "auto":
        return precision
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if torch.cuda.is_available() else _cpu_multiplies_bf16()
    return "bf16" if has_bf16 else "fp32"


def _keep_freed_memory() -> None:
    """Tell glibc to keep what it once had from the system: mapping a step's tensors anew takes a seventh of a step."""
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # not the second alone: it would keep the first from growing by itself, and map whatever is larger than 128 KiB
    if mallopt is not None and any(mallopt(_M_MMAP_THRESHOLD, size) for size in _NEVER_MAPPED):
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def _cpu_multiplies_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))
