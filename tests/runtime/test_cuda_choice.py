"""Which CUDA provider is taken, and what is said where there is none, or no GPU, or no driver."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from edgesod.errors import BackendError, UsageError
from edgesod.runtime.cuda import VARIABLE, choose_provider, memory, open_cuda
from tests.helpers.cuda_stand_ins import PyCudaDriver, RuntimeApi, install


def _only(monkeypatch: pytest.MonkeyPatch, *installed: str) -> None:
    monkeypatch.setattr("edgesod.runtime.cuda.select._is_installed", lambda name: name in (*installed, "memory"))


def test_cuda_python_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    _only(monkeypatch, "cuda-python", "pycuda")
    assert choose_provider() == ("cuda-python", "cuda-python: has CUDA graphs")
    _only(monkeypatch, "pycuda")
    assert choose_provider()[0] == "pycuda"
    monkeypatch.setenv(VARIABLE, "pycuda")
    _only(monkeypatch, "cuda-python", "pycuda")
    assert choose_provider() == ("pycuda", f"pycuda: {VARIABLE} asks for it")
    monkeypatch.setenv(VARIABLE, "memory")
    assert choose_provider()[0] == "memory"


def test_no_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    _only(monkeypatch)
    with pytest.raises(BackendError, match="neither cuda-python nor pycuda") as caught:
        open_cuda()
    assert caught.value.exit_code == 4
    assert "pip install cuda-python" in caught.value.hint
    monkeypatch.setenv(VARIABLE, "pycuda")
    with pytest.raises(BackendError, match="pycuda, which EDGESOD_CUDA asks for, is not installed"):
        open_cuda()
    monkeypatch.setenv(VARIABLE, "rocm")
    with pytest.raises(UsageError, match="rocm"):
        open_cuda()


@pytest.mark.parametrize("stand_in", [RuntimeApi, PyCudaDriver])
def test_no_device(monkeypatch: pytest.MonkeyPatch, stand_in: Any) -> None:
    monkeypatch.setenv(VARIABLE, "cuda-python" if stand_in is RuntimeApi else "pycuda")
    install(monkeypatch, stand_in(gpus=0))
    with pytest.raises(BackendError, match="driver finds no GPU") as caught:
        open_cuda()
    assert caught.value.exit_code == 4
    assert "CUDA_VISIBLE_DEVICES" in caught.value.hint


def test_no_device_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "memory")
    with memory.simulated(gpus=()) as driver, pytest.raises(BackendError, match="driver finds no GPU"):
        open_cuda()
    assert sum(driver.live().values()) == 0


@pytest.mark.parametrize(
    ("version", "words"), [(0, "there is no NVIDIA driver here: .*35"), (12020, "serves CUDA up to 12.2, .* for 13.5")]
)
def test_no_driver_or_too_old_a_one(monkeypatch: pytest.MonkeyPatch, version: int, words: str) -> None:
    monkeypatch.setenv(VARIABLE, "cuda-python")
    stand_in = RuntimeApi(driver=version)
    stand_in.fails["cudaGetDeviceCount"] = stand_in.cudaError_t.cudaErrorInsufficientDriver
    install(monkeypatch, stand_in)
    with pytest.raises(BackendError, match=words) as caught:
        open_cuda()
    assert caught.value.exit_code == 4


def test_bindings_that_raise_where_there_is_no_driver_are_told_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    # as cuda-bindings 12.8 and 12.9 do
    def fail() -> None:
        raise RuntimeError("Failed to dlopen libcuda.so.1")

    stand_in = RuntimeApi()
    monkeypatch.setattr(stand_in, "cudaGetDeviceCount", fail)
    install(monkeypatch, stand_in)
    monkeypatch.setenv(VARIABLE, "cuda-python")
    with pytest.raises(BackendError, match="no NVIDIA driver here: Failed to dlopen"):
        open_cuda()


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ("cuInit failed: CUDA driver is a stub library", "no NVIDIA driver here: cuInit failed"),
        ("cuInit failed: unknown error", "CUDA does not start: cuInit failed: unknown error"),
    ],
)
def test_pycuda_with_a_driver_that_fails(monkeypatch: pytest.MonkeyPatch, says: str, words: str) -> None:
    stand_in = PyCudaDriver()

    def init() -> None:
        raise stand_in.Error(says)

    monkeypatch.setattr(stand_in, "init", init)
    install(monkeypatch, stand_in)
    monkeypatch.setenv(VARIABLE, "pycuda")
    with pytest.raises(BackendError, match=words) as caught:
        open_cuda()
    assert caught.value.exit_code == 4
    assert "nvidia-smi" in caught.value.hint


def test_pycuda_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoDriver:
        """Fails as pycuda's extension does where the library of the driver is missing."""

        def find_spec(self, name: str, *_: object) -> None:
            if name == "pycuda.driver":
                raise ImportError("libcuda.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setenv(VARIABLE, "pycuda")
    install(monkeypatch, PyCudaDriver())
    monkeypatch.delitem(sys.modules, "pycuda.driver")
    monkeypatch.delattr(sys.modules["pycuda"], "driver")
    monkeypatch.setattr(sys, "meta_path", [NoDriver(), *sys.meta_path])
    with pytest.raises(BackendError, match=r"no NVIDIA driver here: libcuda\.so\.1") as caught:
        open_cuda()
    assert caught.value.exit_code == 4
