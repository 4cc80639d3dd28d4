"""What this machine's CPU can do at most, measured: multiplications in FP32 and INT8, and bytes to and from memory.

Arithmetic is that of two networks that are nothing but convolutions, one of 1×1 (a matrix multiplication) and one of 3×3, written
on the fly and run in the backends that are here; the best rate counts, whoever reaches it. Everything they touch fits a core's
second-level cache but for the weights of the 3×3. Memory is a copy of more than caches hold, read and write counted.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgesod.bench.roofline import Peaks
from edgesod.errors import EdgesodError, InputError
from edgesod.recipe import Precision
from edgesod.runtime import open_session
from edgesod.threads import resolve_threads

BACKENDS = ("openvino", "onnxruntime")
CHANNELS, SIZE = 256, 32
LAYERS_BY_KERNEL = {1: 8, 3: 4}
INT8_LAYERS = 4
"""So many times as many for INT8, which is that much faster: else the call, and the input's way to 8 bits, were some of its time."""
COPY_BYTES = 256 << 20
"""Of each of the two arrays. Larger than what the cores of one machine share, but for the largest servers."""


@dataclass(frozen=True)
class MeasuredPeaks:
    """Peaks of this machine and how they were reached.

    Attributes:
        peaks: The rates; those of precisions that were not measured are FP32's, in which a CPU then computes.
        threads: With how many threads.
        how: What reached each peak, in a few words, by precision and for ``memory``.
    """

    peaks: Peaks
    threads: int
    how: dict[str, str]


def measure_peaks(
    threads: int | None = None,
    precisions: Collection[Precision] = ("fp32", "int8"),
    *,
    seconds: float = 0.2,
    copy_bytes: int = COPY_BYTES,
) -> MeasuredPeaks:
    """Measure this CPU's limits; FP32 always.

    Args:
        threads: CPU threads; every physical core this process may use where ``None``.
        precisions: Which of ``fp32``, ``bf16`` and ``int8``; ``bf16`` only where the CPU has it.
        seconds: For each measurement, of which there are two a backend and precision, and one of the memory.
        copy_bytes: Size of the arrays that are copied.

    Raises:
        InputError: No backend here runs FP32.
    """
    count = resolve_threads(threads)
    rates: dict[str, float] = {}
    how: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="edgesod-peaks-") as folder:
        for precision in dict.fromkeys(("fp32", *precisions)):
            for kernel, layers in LAYERS_BY_KERNEL.items():
                path = Path(folder) / f"{precision}-{kernel}.onnx"
                is_int8 = precision == "int8"
                macs = write_convolutions(path, kernel, layers * INT8_LAYERS if is_int8 else layers, is_int8=is_int8)
                for backend in BACKENDS:
                    rate = _rate(path, precision, backend, count, macs, seconds)
                    if rate is not None and rate > rates.get(precision, 0):
                        rates[precision] = rate
                        how[precision] = f"{kernel}×{kernel} convolutions of {CHANNELS} channels in {backend}"
    if "fp32" not in rates:
        raise InputError(f"none of {', '.join(BACKENDS)} runs FP32 here", hint="see `edgesod doctor`")
    how["memory"] = f"copies of {copy_bytes >> 20} MiB"
    fp32 = rates["fp32"]
    peaks = Peaks(_copy_gb_s(copy_bytes, count, seconds), fp32, rates.get("bf16", fp32), rates.get("int8", fp32))
    return MeasuredPeaks(peaks, count, how)


def write_convolutions(path: Path, kernel: int, layers: int, *, is_int8: bool) -> int:
    """Write a network of ``layers`` convolutions with ReLU, as Q/DQ with unsigned activations for INT8; return its MACs."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    deviation = (2 / CHANNELS) ** 0.5 / kernel  # He's: through any number of layers numbers stay as large as they are
    weights = generator.normal(0, deviation, (CHANNELS, CHANNELS, kernel, kernel)).astype(np.float32)
    constants: dict[str, Any] = {"weights": weights}
    nodes: list[Any] = []
    tensor, kernel_name = "image", "weights"
    if is_int8:
        step = np.float32(np.abs(weights).max() / 127)
        constants = {
            "weights_q": np.rint(weights / step).astype(np.int8),
            "weights_scale": step,
            "weights_zero": np.int8(0),
            "scale": np.float32(8 / 255),
            "zero": np.uint8(0),
        }
        nodes.append(helper.make_node("DequantizeLinear", ["weights_q", "weights_scale", "weights_zero"], ["weights"]))

    def through_8_bits(name: str) -> str:
        nodes.append(helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", "scale", "zero"], [f"{name}_dq"]))
        return f"{name}_dq"

    if is_int8:
        tensor = through_8_bits(tensor)
    for k in range(layers):
        pads = [kernel // 2] * 4
        nodes.append(helper.make_node("Conv", [tensor, kernel_name], [f"conv{k}"], kernel_shape=[kernel] * 2, pads=pads))
        nodes.append(helper.make_node("Relu", [f"conv{k}"], [f"relu{k}"]))
        tensor = through_8_bits(f"relu{k}") if is_int8 else f"relu{k}"
    nodes.append(helper.make_node("ReduceMax", [tensor], ["largest"], keepdims=1))  # so that next to nothing is copied out
    graph = helper.make_graph(
        nodes,
        "peak",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, CHANNELS, SIZE, SIZE])],
        [helper.make_tensor_value_info("largest", TensorProto.FLOAT, [1, 1, 1, 1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return layers * (CHANNELS * SIZE * kernel) ** 2


def _rate(path: Path, precision: Precision, backend: str, threads: int, macs: int, seconds: float) -> float | None:
    """Return 10¹² operations a second, two a multiply-accumulate; ``None`` where the backend cannot do that here."""
    image = np.abs(np.random.default_rng(1).normal(0, 1, (1, CHANNELS, SIZE, SIZE))).astype(np.float32)
    try:
        with open_session(path, precision, backend, threads) as session:
            return 2 * macs / _best_s(lambda: session.run({"image": image}), seconds) / 1e12
    except EdgesodError:
        return None


def _copy_gb_s(num_bytes: int, threads: int, seconds: float) -> float:
    source = np.ones(num_bytes // 8)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:  # NumPy copies without Python's lock

        def copy() -> None:
            for done in [pool.submit(np.copyto, to, of) for of, to in parts]:
                done.result()

        return 2 * source.nbytes / _best_s(copy, seconds) / 1e9


def _best_s(run: Callable[[], object], seconds: float) -> float:
    """Return the shortest of the runs that fit a time, at least three after one that is not counted: a limit is a best case."""
    run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)
