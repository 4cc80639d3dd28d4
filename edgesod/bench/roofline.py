"""The least time a network can take on a GPU: its arithmetic over the peak rate, its traffic over the bandwidth.

After Williams, Waterman and Patterson, "Roofline", Communications of the ACM 52(4), 2009. What is counted:

- arithmetic: the multiply-accumulates of the convolutions, two operations each;
- traffic: the weights, every tensor that a Conv, MaxPool or Resize reads or writes, and one operand of each Add: it, ReLU and
  Sigmoid are taken to be fused into the convolution before, Concat to be free.

A GPU whose cache holds the activations has less traffic than that, so only the arithmetic is a bound that always holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from edgesod.recipe import Precision

_MOVING = ("Conv", "MaxPool", "Resize")
_BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}


@dataclass(frozen=True)
class Work:
    """What one image costs.

    Attributes:
        macs: Multiply-accumulates of the convolutions.
        weights: Numbers of weights.
        activations: Numbers that move between memory and the GPU otherwise.
    """

    macs: int
    weights: int
    activations: int


@dataclass(frozen=True)
class Peaks:
    """What a GPU can do at most, dense, by its datasheet.

    Attributes:
        gb_s: Memory bandwidth in 10⁹ bytes a second.
        fp32: 10¹² operations a second of an FP32 engine, by TF32 where the GPU has it, as TensorRT and cuDNN take it.
        fp16: The same for FP16.
        int8: The same for INT8.
    """

    gb_s: float
    fp32: float
    fp16: float
    int8: float


@dataclass(frozen=True)
class Floor:
    """The least time, in milliseconds, by arithmetic and by traffic."""

    compute_ms: float
    memory_ms: float

    @property
    def ms(self) -> float:
        """The larger one, which binds."""
        return max(self.compute_ms, self.memory_ms)


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
            kernel = constants[node.input[1]]  # (c_out, c_in / groups, height, width)
            macs += math.prod(shapes[node.output[0]]) * math.prod(kernel[1:])
            weights += sum(math.prod(constants[name]) for name in node.input[1:])
    return Work(macs, weights, activations)


def floor(work: Work, precision: Precision, peaks: Peaks) -> Floor:
    """Return the least time of ``work`` when every tensor has the type of ``precision``."""
    rate = {"fp32": peaks.fp32, "int8": peaks.int8}.get(precision, peaks.fp16)
    traffic = (work.weights + work.activations) * _BYTES[precision]
    return Floor(2e3 * work.macs / (rate * 1e12), 1e3 * traffic / (peaks.gb_s * 1e9))
