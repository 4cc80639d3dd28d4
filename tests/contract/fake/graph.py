"""An ONNX file as the fake parser, builder and engine see it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

OPERATORS: dict[str, list[str]] = json.loads((Path(__file__).parents[1] / "operators_8.5.json").read_text(encoding="utf-8"))
"""What the parser of TensorRT 8.5 takes, each with its documented types (``docs/operators.md`` of onnx-tensorrt, 8.5-GA)."""
PRECISIONS = {TensorProto.FLOAT: "FP32", TensorProto.FLOAT16: "FP16", TensorProto.BFLOAT16: "BF16", TensorProto.INT8: "INT8"}
DATA_TYPES = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.INT8: "INT8",
    TensorProto.UINT8: "UINT8",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.BOOL: "BOOL",
}
LAYER_TYPES = {
    "Add": "ELEMENTWISE",
    "AveragePool": "POOLING",
    "Cast": "CAST",
    "Concat": "CONCATENATION",
    "Constant": "CONSTANT",
    "Conv": "CONVOLUTION",
    "ConvTranspose": "DECONVOLUTION",
    "DequantizeLinear": "DEQUANTIZE",
    "Div": "ELEMENTWISE",
    "Gather": "GATHER",
    "GlobalAveragePool": "POOLING",
    "MaxPool": "POOLING",
    "Mul": "ELEMENTWISE",
    "QuantizeLinear": "QUANTIZE",
    "Relu": "ACTIVATION",
    "Resize": "RESIZE",
    "Sigmoid": "ACTIVATION",
    "Slice": "SLICE",
    "Sub": "ELEMENTWISE",
}
MATRIX_OPERATORS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
DLA_OPERATORS = {"Add", "Concat", "Conv", "ConvTranspose", "MaxPool", "Mul", "Relu", "Sigmoid", "Sub"}
"""A DLA's, roughly: enough to see some layers on it and some not."""


@dataclass(frozen=True)
class Fault:
    """Why a file does not parse: an ``ErrorCode``, what is wrong, and the node it is wrong at (-1: none)."""

    code: str
    text: str
    node: int = -1


class Graph:
    """A parsed ONNX model.

    Attributes:
        model: With inferred shapes.
        inputs, outputs: Name → (element type, shape; -1 where free).
        types: Element type of every tensor, 0 where unknown.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.shape_inference.infer_shapes(model)
        graph = self.model.graph
        constants = {tensor.name: tensor for tensor in graph.initializer}
        self.constants = constants
        self.inputs = {entry.name: _tensor(entry) for entry in graph.input if entry.name not in constants}
        self.outputs = {entry.name: _tensor(entry) for entry in graph.output}
        self.shapes = {entry.name: _tensor(entry)[1] for entry in [*graph.input, *graph.value_info, *graph.output]}
        self.types = {entry.name: _tensor(entry)[0] for entry in [*graph.input, *graph.value_info, *graph.output]}
        self.types |= {name: tensor.data_type for name, tensor in constants.items()}
        self.producers = {tensor: node for node in graph.node for tensor in node.output}

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        return list(self.model.graph.node)

    @property
    def is_quantised(self) -> bool:
        return any(node.op_type == "QuantizeLinear" for node in self.nodes)

    def precision_of(self, node: onnx.NodeProto) -> str:
        """Return the precision that the file gives a node: INT8 where it reads what a DequantizeLinear gives."""
        producer = self.producers.get(node.input[0]) if node.input else None
        if producer is not None and producer.op_type == "DequantizeLinear" and node.op_type in MATRIX_OPERATORS:
            return "INT8"
        return PRECISIONS.get(self.types.get(node.output[0], 0), "INT32")


def parse(content: bytes, folder: str, version: tuple[int, int]) -> Graph | Fault:
    """Return the graph of a serialised model, or what the parser of a version would say against it.

    Stricter than the real one in two points: the file has to pass ONNX's own checker, and its opset may not be beyond what
    the version documents (8.5 and 8.6: 17; 10.0: 20; 11: 25; between them what is known to be there).
    """
    try:
        model = onnx.load_from_string(content)
        onnx.load_external_data_for_model(model, folder)
        if not model.graph.node:
            raise ValueError("no node in it")
    except Exception as error:
        return Fault("MODEL_DESERIALIZE_FAILED", f"Failed to parse the ONNX model: {error}")
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    newest = 17 if version < (10, 0) else 20 if version < (10, 9) else 21 if version < (11, 0) else 25
    if opset > newest:
        return Fault("UNSUPPORTED_GRAPH", f"opset {opset} is beyond {newest}, the newest that this parser knows")
    for index, node in enumerate(model.graph.node):
        if node.op_type not in OPERATORS and (version < (10, 0) or not onnx.defs.has(node.op_type, node.domain)):
            return Fault("UNSUPPORTED_NODE", f"No importer registered for op: {node.op_type}", index)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        return Fault("INVALID_GRAPH", str(error))
    graph = Graph(model)
    for name, (kind, _) in [*graph.inputs.items(), *graph.outputs.items()]:
        if kind not in DATA_TYPES:
            return Fault("UNSUPPORTED_GRAPH", f"Unsupported ONNX data type {TensorProto.DataType.Name(kind)} of {name}")
    return _bytes_fault(graph) or _quantisation_fault(graph, version) or graph


def _bytes_fault(graph: Graph) -> Fault | None:
    """Unsigned bytes may be inputs from 8.5 on (onnx-tensorrt's changelog), but only to be cast to floats, and nothing else."""
    for index, node in enumerate(graph.nodes):
        reads = any(graph.types.get(name) == TensorProto.UINT8 for name in node.input if name in graph.inputs)
        to = graph.types.get(node.output[0])
        if reads and (node.op_type != "Cast" or to not in (TensorProto.FLOAT, TensorProto.FLOAT16)):
            return Fault("UNSUPPORTED_NODE", f"{node.op_type}: UINT8 can only be cast to FP32 or FP16", index)
    return None


def _quantisation_fault(graph: Graph, version: tuple[int, int]) -> Fault | None:
    """Zero points that are not zero, unsigned and 32-bit integers, and scales of zero are refused by every version.

    Constants that are integers already are refused before 10. Up to 8.4 they were (NVIDIA/TensorRT #2163); of 8.5 and 8.6 it
    is assumed.
    """
    for index, node in enumerate(graph.nodes):
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        integers = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
        if graph.types.get(integers) != TensorProto.INT8:
            return Fault("UNSUPPORTED_NODE", f"{node.op_type}: only INT8 can be quantised to", index)
        if version < (10, 0) and node.op_type == "DequantizeLinear" and integers in graph.constants:
            return Fault("INVALID_NODE", f"{integers}: invalid weights type of Int8", index)
        scale, zero_point = (graph.constants.get(name) for name in [*node.input, "", ""][1:3])
        if zero_point is not None and numpy_helper.to_array(zero_point).any():
            return Fault("INVALID_NODE", f"{node.op_type}: the zero point has to be zero", index)
        if scale is None or not (numpy_helper.to_array(scale) > 0).all():
            return Fault("INVALID_NODE", f"{node.op_type}: scales have to be positive constants", index)
    return None


def _tensor(entry: onnx.ValueInfoProto) -> tuple[int, tuple[int, ...]]:
    kind = entry.type.tensor_type
    return kind.elem_type, tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)


@lru_cache(8)
def inference_of(content: bytes) -> Any:
    """Return an ONNX Runtime session on a model, which computes what the fake engine claims to."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # in an FP16 graph this one would round biases to steps that underflow, which TensorRT does not do
    unwanted = ["WeightBiasQuantization"]
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], disabled_optimizers=unwanted)


def numpy_type(kind: int) -> np.dtype[Any]:
    return onnx.helper.tensor_dtype_to_np_dtype(kind)
