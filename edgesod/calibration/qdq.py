"""INT8 as explicit quantise–dequantise pairs in an ONNX file, from a calibration table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgesod.recipe import RangeMethod

from ._graph import Graph
from .schemes import Plan, Scheme, plan
from .table import CalibrationTable, Range

_SMALLEST_SCALE = 1e-8
"""A scale of zero breaks builds; a channel whose weights are all zero would have one."""
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
) -> None:
    """Write the INT8 version of an FP32 ONNX; weights are int8 per output channel, inputs and outputs stay FP32.

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

    Raises:
        InputError: ``source_onnx`` cannot be used, or a pattern matches no node.
        StaleError: The table lacks a tensor of the network.
        OutputError: The file cannot be written.
    """
    graph = Graph(source_onnx)

    def range_of(tensor: str) -> Range:
        return table.range_of(tensor, method)

    _Writer(graph, plan(graph, scheme, range_of, graph.matching(float_nodes)), 64 if reduce_weights else 127).write(target_onnx)


@dataclass(frozen=True)
class _Scale:
    """Real value = scale × (integer − zero point)."""

    scale: float
    zero_point: NDArray[np.uint8] | NDArray[np.int8]


class _Writer:
    """Puts a plan's pairs into the graph, each right behind what makes its tensor."""

    def __init__(self, graph: Graph, todo: Plan, weight_limit: int) -> None:
        self._graph, self._plan, self._weight_limit = graph, todo, weight_limit
        self._scales = {tensor: _scale_of(todo.range_of(tensor), todo.signed) for tensor in todo.readers}
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
        scales = scales.astype(np.float32)
        integers = np.rint(weights / scales.reshape(-1, *[1] * (weights.ndim - 1)))
        limit = self._weight_limit
        conv.input[1] = self._dequantised(f"{conv.name}/weight", np.clip(integers, -limit, limit).astype(np.int8), scales)
        if bias is not None and not self._plan.signed:
            steps = scales * np.float32(input_scale.scale)
            conv.input[2] = self._dequantised(
                f"{conv.name}/bias", np.rint(bias / steps.astype(np.float64)).astype(np.int32), steps
            )

    def _dequantised(self, name: str, integers: NDArray[np.int8] | NDArray[np.int32], scales: NDArray[np.float32]) -> str:
        inputs = [
            self._constant(f"{name}/quantised", integers),
            self._constant(f"{name}/scale", scales),
            self._constant(f"{name}/zero_point", np.zeros(len(scales), integers.dtype)),
        ]
        return self._add_node("DequantizeLinear", inputs, f"{name}/dequantised", axis=0)

    def _add_node(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(op_type, inputs, [output], name=f"{output}/{op_type}", **attributes))
        return output

    def _constant(self, name: str, value: NDArray[np.generic] | np.float32) -> str:
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def _scale_of(low_high: Range, signed: bool) -> _Scale:
    low, high = min(low_high[0], 0.0), max(low_high[1], 0.0)  # zero must be an integer: padding is made of it
    if signed:
        return _Scale(max(high, -low, 127 * _SMALLEST_SCALE) / 127, np.array(0, np.int8))
    scale = max((high - low) / 255, _SMALLEST_SCALE)
    return _Scale(scale, np.array(round(-low / scale), np.uint8))
