"""FP16 as an FP16 graph with FP32 inputs and outputs: the precision is in the file, and no builder has to be asked for it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ._graph import OPSET, Graph

log = logging.getLogger("edgesod.calibration")

_LARGEST = float(np.finfo(np.float16).max)
_TYPED_BY_ATTRIBUTE = {"Cast", "ConstantOfShape", "EyeLike"}
_FLOAT_INPUTS = {"Resize": (1, 2, 3)}
"""Region, scales and sizes of Resize keep their types whatever its image has."""


def write_fp16(source_onnx: str | Path, target_onnx: str | Path, keep_float: Sequence[str] = (), *, opset: int = OPSET) -> None:
    """Write the FP16 version of an FP32 ONNX.

    Weights become float16, every node computes in float16 where its operator can, and one cast follows each FP32 input and
    precedes each FP32 output. A node that cannot, or has a weight beyond 65504, stays in FP32 with casts round it.

    Args:
        source_onnx: FP32 ONNX.
        target_onnx: The file to write.
        keep_float: Shell patterns of node names that stay in FP32.
        opset: Of the file to write: 17, or 19, in which Q/DQ pairs compute in float16 as well.

    Raises:
        InputError: ``source_onnx`` cannot be used, or a pattern matches no node.
        OutputError: The file cannot be written.
    """
    graph = Graph(source_onnx, opset)
    _Writer(graph, graph.matching(keep_float)).write(target_onnx)


class _Writer:
    """Walks the graph once, giving every node its inputs in the type it computes in.

    A float tensor exists in the type it was made in, and in the other one behind a cast once something asks for it.
    """

    def __init__(self, graph: Graph, keep_float: set[str]) -> None:
        self._graph, self._keep_float = graph, keep_float
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[TensorProto] = []
        singles = [c.name for c in graph.constants.values() if c.data_type == TensorProto.FLOAT]
        singles += [entry.name for entry in graph.model.graph.input]
        self._names: dict[tuple[str, bool], str] = {
            (tensor, False): tensor for tensor in singles if tensor in {*graph.float_tensors, *graph.constants}
        }

    def write(self, target: str | Path) -> None:
        floats = set(self._graph.float_tensors)
        for node in self._graph.nodes:
            half = self._computes_in_half(node)
            for k, tensor in enumerate(node.input):
                node.input[k] = self._typed(tensor, half and k not in _FLOAT_INPUTS.get(node.op_type, ()))
            self._nodes.append(node)
            for k, tensor in enumerate(node.output):
                if tensor not in floats:
                    continue
                self._names[tensor, half] = tensor
                if half and tensor in self._graph.outputs:
                    node.output[k] = self._names[tensor, True] = f"{tensor}/float16"
                    self._cast(node.output[k], tensor, TensorProto.FLOAT)
                    self._names[tensor, False] = tensor
        self._graph.write(target, self._nodes, self._weights)

    def _computes_in_half(self, node: onnx.NodeProto) -> bool:
        if node.name in self._keep_float or not _can_be_half(node, self._graph.opset):
            return False
        for k, tensor in enumerate(node.input):
            if tensor in self._graph.constants and k not in _FLOAT_INPUTS.get(node.op_type, ()):
                values = self._graph.array(tensor)
                if values.dtype == np.float32 and values.size and np.abs(values).max() > _LARGEST:
                    log.warning("%s stays in FP32: %s is beyond the range of FP16", node.name, tensor)
                    return False
        return True

    def _typed(self, tensor: str, half: bool) -> str:
        """Return the name of a tensor in half or single precision, making it so where it does not exist yet."""
        made = self._names.get((tensor, not half))
        if (tensor, half) in self._names or made is None:  # None: not a float tensor
            return self._names.get((tensor, half), tensor)
        name = self._names[tensor, half] = f"{tensor}/float16" if half else f"{tensor}/float32"
        if tensor in self._graph.constants:
            self._weights.append(numpy_helper.from_array(self._graph.array(tensor).astype(np.float16), name))
        else:
            self._cast(made, name, TensorProto.FLOAT16 if half else TensorProto.FLOAT)
        return name

    def _cast(self, source: str, target: str, to: int) -> None:
        self._nodes.append(helper.make_node("Cast", [source], [target], name=f"{target}/Cast", to=to))


def _can_be_half(node: onnx.NodeProto, opset: int) -> bool:
    """Say whether an operator can take and give float16 where it takes and gives float32."""
    if node.domain not in ("", "ai.onnx") or node.op_type in _TYPED_BY_ATTRIBUTE:
        return False
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    formals = (*schema.inputs[:1], *schema.outputs)
    return all("tensor(float16)" in formal.types for formal in formals if "tensor(float)" in formal.types)
