"""A machine's limits: the probe's work by hand, the rates of backends that take a known time, and the real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgesod.bench import peaks
from edgesod.bench.peaks import CHANNELS, INT8_LAYERS, LAYERS_BY_KERNEL, SIZE, measure_peaks, write_convolutions
from edgesod.bench.roofline import work_of
from edgesod.errors import BackendError, InputError
from edgesod.runtime import MemorySession, open_session
from edgesod.types import TensorSpec

IMAGE, LARGEST = TensorSpec("image", (1, CHANNELS, SIZE, SIZE), "float32"), TensorSpec("largest", (1, 1, 1, 1), "float32")


@pytest.mark.parametrize("kernel", LAYERS_BY_KERNEL)
def test_the_work_of_a_probe(tmp_path: Path, kernel: int) -> None:
    macs = write_convolutions(tmp_path / "fp32.onnx", kernel, 3, is_int8=False)
    assert macs == 3 * (SIZE * SIZE * CHANNELS) * (CHANNELS * kernel * kernel) == work_of(tmp_path / "fp32.onnx").macs
    assert write_convolutions(tmp_path / "int8.onnx", kernel, 3, is_int8=True) == macs
    onnx.checker.check_model(str(tmp_path / "int8.onnx"), full_check=True)


def test_backends_agree_on_the_8_bit_probe(tmp_path: Path) -> None:
    write_convolutions(tmp_path / "int8.onnx", 1, 2, is_int8=True)
    image = {"image": np.abs(np.random.default_rng(0).normal(0, 1, IMAGE.shape)).astype(np.float32)}
    found = []
    for backend in ("openvino", "onnxruntime"):
        with open_session(tmp_path / "int8.onnx", "int8", backend, 1) as session:
            found.append(session.run(image)["largest"].item())
    step = 8 / 255
    assert found[0] == pytest.approx(found[1], abs=1.5 * step)
    assert found[0] > 10 * step


def test_the_best_backend_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    delays = {
        ("openvino", "fp32"): 0.02,
        ("onnxruntime", "fp32"): 0.01,
        ("openvino", "int8"): 0.004,
        ("onnxruntime", "int8"): 0.02,
    }

    def open_sleeping(_path: Path, precision: str, backend: str, threads: int) -> MemorySession:
        assert threads == 1
        result = {"largest": np.zeros(LARGEST.shape, np.float32)}
        return MemorySession(lambda _: result, [IMAGE], [LARGEST], delay_s=delays[backend, precision])

    monkeypatch.setattr(peaks, "open_session", open_sleeping)
    found = measure_peaks(1, seconds=0.01, copy_bytes=1 << 20)
    macs = max(layers * (CHANNELS * SIZE * kernel) ** 2 for kernel, layers in LAYERS_BY_KERNEL.items())
    for precision, backend, delay_s, times in (("fp32", "onnxruntime", 0.01, 1), ("int8", "openvino", 0.004, INT8_LAYERS)):
        limit = 2 * times * macs / delay_s / 1e12  # sleeping takes that long at least
        assert 0.5 * limit < found.peaks.rate(precision) <= limit  # type: ignore[arg-type]
        assert found.how[precision] == f"3×3 convolutions of {CHANNELS} channels in {backend}"
    assert found.peaks.fp16 == found.peaks.fp32, "which a CPU computes it in"


def test_a_backend_that_is_missing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise BackendError("not installed")

    monkeypatch.setattr(peaks, "open_session", absent)
    with pytest.raises(InputError, match="FP32"):
        measure_peaks(1, seconds=0.01, copy_bytes=1 << 20)


def test_this_machine_has_limits() -> None:
    found = measure_peaks(1, seconds=0.02, copy_bytes=1 << 22)
    assert found.threads == 1
    assert 0.1 < found.peaks.gb_s < 10_000
    assert 0.001 < found.peaks.fp32 < found.peaks.int8 * 10 < 1000
