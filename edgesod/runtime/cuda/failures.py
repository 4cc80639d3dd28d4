"""The sentences of the errors that every provider can meet."""

from __future__ import annotations

from edgesod.errors import BackendError, DeviceError


def no_driver(detail: str) -> BackendError:
    """Return the error for a machine without a driver."""
    return BackendError(
        f"there is no NVIDIA driver here: {detail}",
        hint="install the driver, so that `nvidia-smi` lists the GPU (a container needs --gpus all); or use another backend",
    )


def does_not_start(detail: str) -> BackendError:
    """Return the error for a driver that is there and fails, such as one that does not fit its kernel module."""
    return BackendError(f"CUDA does not start: {detail}", hint="see what `nvidia-smi` says")


def no_device(count: int) -> BackendError:
    """Return the error for a driver that finds no GPU, or too few."""
    return BackendError(
        "the NVIDIA driver finds no GPU" if count == 0 else f"the NVIDIA driver finds no more than {count} GPU",
        hint="look at CUDA_VISIBLE_DEVICES and `nvidia-smi` (a container needs --gpus all); or use another backend",
    )


def out_of_memory(nbytes: int, where: str) -> DeviceError:
    """Return the error for an allocation that failed."""
    return DeviceError(
        f"out of memory: {nbytes / 2**20:.1f} MiB of {where} cannot be had",
        hint="close other programs that use the GPU, or build for a smaller batch",
    )
