"""INT8 as explicit quantise–dequantise pairs in an ONNX file, from a calibration table."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgesod.recipe import RangeMethod

from ._graph import HALF_QDQ_OPSET, Graph
from .fp16 import write_fp16
from .schemes import Plan, Scheme, plan
from .table import CalibrationTable, Range

_SMALLEST_SCALE = 1e-8
"""A scale of zero breaks builds; a channel whose weights are all zero would have one."""
_SMALLEST_HALF_SCALE = 2.0**-20
"""Below it FP16 has fewer than four bits for a scale."""
_LARGEST_BIAS = float(2**30)


def write_qdq(
    source_onnx: str | Path,
    target_onnx: str | Path,
    table: CalibrationTable,
    method: RangeMethod,
    *,
    scheme: Scheme,
    float_nodes: Sequence[str] = (),
    reduce_weights: bool = False,
    half_scales: bool = False,
) -> None:
    """Write the INT8 version of an FP32 ONNX; weights are int8 per output channel, inputs and outputs stay FP32.

    For TensorRT they are stored as floats, each a multiple of its scale, and a pair of their own makes the integers, as
    NVIDIA's pytorch-quantization does it. Constants of INT8 are known to be refused up to 8.4 (NVIDIA/TensorRT #2163,
    microsoft/onnxruntime #11535: "invalid weights type of Int8").

    Args:
        source_onnx: FP32 ONNX with BatchNorm folded.
        target_onnx: The file to write: opset 17, IR version 8.
        table: Ranges measured on ``source_onnx``.
        method: Which of the table's ranges is used.
        scheme: ``"cpu"`` for ONNX Runtime and OpenVINO, ``"tensorrt"`` for TensorRT; see
            :mod:`~edgesod.calibration.schemes` for what each quantises.
        float_nodes: Shell patterns of node names that stay in float.
        reduce_weights: Keep weights within ±64, for CPUs without an 8-bit dot product: theirs adds pairs of products in
            16 bits, which full weights saturate.
        half_scales: Use scales that FP16 holds exactly.

    Raises:
        InputError: ``source_onnx`` cannot be used, or a pattern matches no node.
        StaleError: The table lacks a tensor of the network.
        OutputError: The file cannot be written.
    """
    graph = Graph(source_onnx)

    def range_of(tensor: str) -> Range:
        return table.range_of(tensor, method)

    todo = plan(graph, scheme, range_of, graph.matching(float_nodes))
    _Writer(graph, todo, 64 if reduce_weights else 127, half_scales).write(target_onnx)


def write_half_qdq(
    source_onnx: str | Path,
    target_onnx: str | Path,
    table: CalibrationTable,
    method: RangeMethod,
    *,
    float_nodes: Sequence[str] = (),
    keep_float: Sequence[str] = (),
) -> None:
    """Write the INT8 version of an FP32 ONNX whose floats are FP16, between FP32 inputs and outputs.

    It is what a strongly typed network of TensorRT needs: there the file alone says what is computed in which type. ONNX
    Runtime computes it as well, if it is kept from turning biases into integers, whose steps FP16 cannot hold:
    ``InferenceSession(…, disabled_optimizers=["WeightBiasQuantization"])``.

    Args:
        source_onnx: FP32 ONNX with BatchNorm folded.
        target_onnx: The file to write: opset 19, IR version 9.
        table: Ranges measured on ``source_onnx``.
        method: Which of the table's ranges is used.
        float_nodes: Shell patterns of node names that stay in FP16.
        keep_float: Shell patterns of node names whose results FP16 cannot hold: they give FP32, from integers where they are
            quantised.

    Raises:
        InputError: ``source_onnx`` cannot be used, or a pattern matches no node.
        StaleError: The table lacks a tensor of the network.
        OutputError: The file cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="edgesod-") as folder:
        pairs = Path(folder) / "qdq.onnx"
        write_qdq(source_onnx, pairs, table, method, scheme="tensorrt", float_nodes=float_nodes, half_scales=True)
        write_fp16(pairs, target_onnx, _with_pairs(pairs, keep_float), opset=HALF_QDQ_OPSET)


def _with_pairs(path: Path, patterns: Sequence[str]) -> tuple[str, ...]:
    """Return patterns of some nodes, of the pairs they read, and of whatever else reads those pairs.

    A cast between a pair and its reader would keep TensorRT from seeing a quantised layer, so a pair has one type.
    """
    graph = Graph(path)
    kept, readers = graph.matching(patterns), graph.consumers()
    todo = [node for node in graph.nodes if node.name in kept]
    while todo:
        node = todo.pop()
        near = [graph.producer[tensor] for tensor in node.input if tensor in graph.producer]
        near = [other for other in near if other.op_type in ("QuantizeLinear", "DequantizeLinear")]
        if node.op_type == "DequantizeLinear":
            near += readers.get(node.output[0], [])
        todo += [other for other in near if other.name not in kept]
        kept.update(other.name for other in near)
    return tuple(map(escape, sorted(kept)))


def symmetric_scale(low_high: Range) -> float:
    """Return the scale that takes a range to −127 … 127 around zero; never zero, which breaks builds."""
    return max(low_high[1], -low_high[0], 127 * _SMALLEST_SCALE) / 127


@dataclass(frozen=True)
class _Scale:
    """Real value = scale × (integer − zero point)."""

    scale: float
    zero_point: NDArray[np.uint8] | NDArray[np.int8]


class _Writer:
    """Puts a plan's pairs into the graph, each right behind what makes its tensor."""

    def __init__(self, graph: Graph, todo: Plan, weight_limit: int, half_scales: bool) -> None:
        self._graph, self._plan, self._weight_limit, self._half_scales = graph, todo, weight_limit, half_scales
        self._scales = {tensor: self._scale_of(todo.range_of(tensor)) for tensor in todo.readers}
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def write(self, target: str | Path) -> None:
        for entry in self._graph.model.graph.input:
            self._add_pair(entry.name)
        for node in self._graph.nodes:
            original = list(node.input)
            for k, tensor in enumerate(original):
                if node.name in self._plan.readers.get(tensor, ()):
                    node.input[k] = f"{tensor}/dequantised"
            if node.name in self._plan.convs:
                self._quantise_weights(node, self._scales[original[0]])
            self._nodes.append(node)
            for tensor in node.output:
                self._add_pair(tensor)
        self._graph.write(target, self._nodes, self._constants)

    def _add_pair(self, tensor: str) -> None:
        if tensor not in self._scales:
            return
        scale = self._constant(f"{tensor}/scale", np.float32(self._scales[tensor].scale))
        zero_point = self._constant(f"{tensor}/zero_point", self._scales[tensor].zero_point)
        self._add_node("QuantizeLinear", [tensor, scale, zero_point], f"{tensor}/quantised")
        self._add_node("DequantizeLinear", [f"{tensor}/quantised", scale, zero_point], f"{tensor}/dequantised")

    def _quantise_weights(self, conv: onnx.NodeProto, input_scale: _Scale) -> None:
        weights = self._graph.array(conv.input[1])
        bias = self._graph.array(conv.input[2]) if len(conv.input) > 2 else None
        largest = np.abs(weights).max(axis=tuple(range(1, weights.ndim)))
        scales = np.maximum(largest / self._weight_limit, _SMALLEST_SCALE)
        if bias is not None:
            # as an integer in steps of input scale × weight scale the bias has to fit 32 bits, also where weights vanish;
            # in the signed scheme it is ONNX Runtime that makes it one
            scales = np.maximum(scales, np.abs(bias) / (input_scale.scale * _LARGEST_BIAS))
        scales = self._storable(scales)
        integers = np.rint(weights / scales.reshape(-1, *[1] * (weights.ndim - 1)))
        limit = self._weight_limit
        conv.input[1] = self._dequantised(
            f"{conv.name}/weight",
            np.clip(integers, -limit, limit).astype(np.int8),
            scales,
            # the file with half scales is for TensorRT 10 and later, which take the integers
            as_floats=self._plan.signed and not self._half_scales,
        )
        if bias is not None and not self._plan.signed:
            steps = scales * np.float32(input_scale.scale)
            conv.input[2] = self._dequantised(
                f"{conv.name}/bias", np.rint(bias / steps.astype(np.float64)).astype(np.int32), steps
            )

    def _scale_of(self, low_high: Range) -> _Scale:
        if self._plan.signed:
            return _Scale(float(self._storable(np.array(symmetric_scale(low_high)))), np.array(0, np.int8))
        low, high = min(low_high[0], 0.0), max(low_high[1], 0.0)  # zero must be an integer: padding is made of it
        scale = max((high - low) / 255, _SMALLEST_SCALE)
        return _Scale(scale, np.array(round(-low / scale), np.uint8))

    def _storable(self, scales: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return scales as the file will hold them, so that integers are rounded to what will be read."""
        if self._half_scales:
            scales = np.maximum(scales, _SMALLEST_HALF_SCALE).astype(np.float16)
        return scales.astype(np.float32)

    def _dequantised(
        self,
        name: str,
        integers: NDArray[np.int8] | NDArray[np.int32],
        scales: NDArray[np.float32],
        *,
        as_floats: bool = False,
    ) -> str:
        """Add what stands for a constant: its integers, or the floats that round to them, which a whole pair follows."""
        scale = self._constant(f"{name}/scale", scales)
        zero_point = self._constant(f"{name}/zero_point", np.zeros(len(scales), integers.dtype))
        if as_floats:
            floats = self._constant(f"{name}/floats", integers * scales.reshape(-1, *[1] * (integers.ndim - 1)))
            quantised = self._add_node("QuantizeLinear", [floats, scale, zero_point], f"{name}/quantised", axis=0)
        else:
            quantised = self._constant(f"{name}/quantised", integers)
        return self._add_node("DequantizeLinear", [quantised, scale, zero_point], f"{name}/dequantised", axis=0)

    def _add_node(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(op_type, inputs, [output], name=f"{output}/{op_type}", **attributes))
        return output

    def _constant(self, name: str, value: NDArray[np.generic] | np.float32) -> str:
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name
