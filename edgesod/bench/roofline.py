"""The least time a network can take on a machine: its arithmetic over the peak rate, its traffic over the bandwidth.

After Williams, Waterman and Patterson, "Roofline", Communications of the ACM 52(4), 2009. What is counted:

- arithmetic: the multiply-accumulates of the convolutions, two operations each;
- traffic: the weights, every tensor that a Conv, MaxPool or Resize reads or writes, and one operand of each Add: it, ReLU and
  Sigmoid are taken to be fused into the convolution before, Concat to be free.

A GPU or CPU whose cache holds the activations has less traffic than that, so only the arithmetic is a bound that always holds.
Peaks are a GPU's by its datasheet (:data:`PEAKS`), a CPU's as measured (:mod:`edgesod.bench.peaks`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesod.errors import InputError
from edgesod.recipe import Precision

_MOVING = ("Conv", "MaxPool", "Resize")
_BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}


@dataclass(frozen=True)
class Work:
    """What one image costs.

    Attributes:
        macs: Multiply-accumulates of the convolutions.
        weights: Numbers of weights.
        activations: Numbers that move between memory and processor otherwise.
    """

    macs: int
    weights: int
    activations: int

    def num_bytes(self, precision: Precision) -> int:
        """Return the traffic in bytes when every tensor has the type of ``precision``."""
        return (self.weights + self.activations) * _BYTES[precision]


@dataclass(frozen=True)
class Peaks:
    """What a GPU or CPU can do at most, dense.

    Attributes:
        gb_s: Memory bandwidth in 10⁹ bytes a second.
        fp32: 10¹² operations a second of an FP32 engine, by TF32 where the GPU has it, as TensorRT and cuDNN take it.
        fp16: The same for FP16 and BF16.
        int8: The same for INT8.
    """

    gb_s: float
    fp32: float
    fp16: float
    int8: float

    def rate(self, precision: Precision) -> float:
        """Return 10¹² operations a second at a precision."""
        return {"fp32": self.fp32, "int8": self.int8}.get(precision, self.fp16)


@dataclass(frozen=True)
class Floor:
    """The least time, in milliseconds, by arithmetic and by traffic."""

    compute_ms: float
    memory_ms: float

    @property
    def ms(self) -> float:
        """The larger one, which binds."""
        return max(self.compute_ms, self.memory_ms)

    @property
    def bound_by(self) -> str:
        """What binds: ``compute`` or ``memory``."""
        return "compute" if self.compute_ms >= self.memory_ms else "memory"


PEAKS = {
    "NVIDIA H200": Peaks(gb_s=4800, fp32=494, fp16=989, int8=1979),
    "NVIDIA H100 80GB HBM3": Peaks(gb_s=3350, fp32=494, fp16=989, int8=1979),
    "NVIDIA GeForce RTX 4090": Peaks(gb_s=1008, fp32=82.6, fp16=165, int8=661),
    "NVIDIA GeForce GTX 1080 Ti": Peaks(gb_s=484, fp32=11.3, fp16=11.3, int8=45),
}
"""By the name the driver gives, from the makers' datasheets. Jetsons are not here: the driver calls all of them ``Orin``."""


def work_of(onnx: str | Path) -> Work:
    """Count what an FP32 ONNX of fixed shapes costs.

    Args:
        onnx: As :func:`edgesod.export.export_model` writes it.

    Raises:
        InputError: A convolution's weights are computed (as in a Q/DQ file), or a shape is not fixed.
    """
    import onnx as onnx_package

    graph = onnx_package.shape_inference.infer_shapes(onnx_package.load(str(onnx))).graph
    shapes = {
        entry.name: [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
        for entry in (*graph.input, *graph.value_info, *graph.output)
    }
    constants = {constant.name: list(constant.dims) for constant in graph.initializer}
    macs = weights = activations = 0
    for node in graph.node:
        if node.op_type == "Add":
            activations += math.prod(shapes[node.output[0]])
        if node.op_type not in _MOVING:
            continue
        activations += sum(math.prod(shapes[name]) for name in (*node.input, *node.output) if name in shapes)
        if node.op_type == "Conv":
            if node.input[1] not in constants or node.output[0] not in shapes:
                raise InputError(
                    f"the work of {onnx} cannot be counted: the weights or the size of {node.name or node.output[0]!r} are not fixed",
                    hint="count the FP32 ONNX: an engine folder has it",
                )
            kernel = constants[node.input[1]]  # (c_out, c_in / groups, height, width)
            macs += math.prod(shapes[node.output[0]]) * math.prod(kernel[1:])
            weights += sum(math.prod(constants[name]) for name in node.input[1:])
    return Work(macs, weights, activations)


def floor(work: Work, precision: Precision, peaks: Peaks) -> Floor:
    """Return the least time of ``work`` when every tensor has the type of ``precision``."""
    compute_s = 2 * work.macs / (peaks.rate(precision) * 1e12)
    return Floor(1e3 * compute_s, 1e3 * work.num_bytes(precision) / (peaks.gb_s * 1e9))


def standing(work: Work, precision: Precision, peaks: Peaks, measured_ms: float) -> dict[str, Any]:
    """Return how near a measured time comes to the limit, as one JSON-ready object.

    ``share`` is the floor over the measured time, 1 being the limit itself; ``intensity`` is operations a byte, and below
    ``ridge`` memory binds; ``floors_ms`` are the least times at either precision.
    """
    least, moved = floor(work, precision, peaks), work.num_bytes(precision)
    precisions: tuple[Precision, ...] = ("fp32", "int8")
    return {
        "macs": work.macs,
        "weights": work.weights,
        "activations": work.activations,
        "precision": precision,
        "bytes": moved,
        "intensity": round(2 * work.macs / moved, 2),
        "ridge": round(peaks.rate(precision) * 1e3 / peaks.gb_s, 2),
        "compute_ms": round(least.compute_ms, 4),
        "memory_ms": round(least.memory_ms, 4),
        "bound_by": least.bound_by,
        "measured_ms": measured_ms,
        "gops": round(2 * work.macs / measured_ms / 1e6, 2),
        "share": round(least.ms / measured_ms, 4),
        "floors_ms": {other: round(floor(work, other, peaks).ms, 4) for other in precisions},
        "peaks": {
            "memory_gb_s": round(peaks.gb_s, 2),
            **{f"{other}_gops": round(peaks.rate(other) * 1e3, 2) for other in dict.fromkeys((*precisions, precision))},
        },
    }
