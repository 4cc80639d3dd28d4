"""Read an ONNX file into the one form the writers of this room work on, and write what they made of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import numpy_helper

from edgesod.errors import InputError
from edgesod.files import replacing

OPSET = 17
"""The newest that TensorRT 8.5 and 8.6 parse."""
HALF_QDQ_OPSET = 19
"""The oldest in which QuantizeLinear takes FP16; TensorRT 10.0 parses up to 20."""
_IR_VERSIONS = {OPSET: 8, HALF_QDQ_OPSET: 9}


class Graph:
    """An ONNX graph with what its nodes lack: lookups by tensor name.

    Args:
        path: The file.
        opset: What it is brought to: 17 or 19.

    Attributes:
        opset: As given.
        model: Of that opset; constants are initialisers, initialisers are not inputs, every node has a name of its own.
        nodes: The nodes in topological order; what is in this list is written.
        constants: Initialisers by name.
        producer: Node by the tensor it makes.
        shapes: Shape by tensor, where it is fixed and known.
        float_tensors: Names of all FP32 tensors that are not constants: inputs and activations, in order.

    Raises:
        InputError: The file is missing, is not a valid ONNX model, cannot be brought to the opset, or has control flow.
    """

    def __init__(self, path: str | Path, opset: int = OPSET) -> None:
        self.opset = opset
        self.model = model = _load(Path(path), opset)
        graph = model.graph
        if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for n in graph.node for a in n.attribute):
            raise InputError(f"{path} has control flow (If or Loop)", hint="export it at a fixed shape with `edgesod export`")
        for node in [node for node in graph.node if node.op_type == "Constant"]:
            graph.initializer.append(_value_of(node))
            graph.node.remove(node)
        self.constants = {constant.name: constant for constant in graph.initializer}
        for entry in [entry for entry in graph.input if entry.name in self.constants]:
            graph.input.remove(entry)
        _name_nodes(graph.node)
        self.nodes = list(graph.node)
        self.producer = {output: node for node in self.nodes for output in node.output if output}
        self.outputs = {output.name for output in graph.output}
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
        entries = {entry.name: entry.type.tensor_type for entry in (*inferred.input, *inferred.value_info, *inferred.output)}
        self.shapes = {
            name: tuple(dim.dim_value for dim in tensor.shape.dim)
            for name, tensor in entries.items()
            if tensor.HasField("shape") and all(dim.dim_value > 0 for dim in tensor.shape.dim)
        }
        in_order = [entry.name for entry in graph.input] + [name for node in self.nodes for name in node.output]
        self.float_tensors = [
            name for name in in_order if name in entries and entries[name].elem_type == onnx.TensorProto.FLOAT
        ]

    def array(self, constant: str) -> NDArray[np.float32]:
        """Return an initialiser's values."""
        return numpy_helper.to_array(self.constants[constant])

    def consumers(self) -> dict[str, list[onnx.NodeProto]]:
        """Return the nodes that read each tensor."""
        found: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                found.setdefault(name, []).append(node)
        return found

    def matching(self, patterns: Sequence[str]) -> set[str]:
        """Return the names of the nodes that match any of some shell patterns.

        Raises:
            InputError: A pattern matches no node, so it is misspelt or belongs to another network.
        """
        found: set[str] = set()
        for pattern in patterns:
            matched = {node.name for node in self.nodes if fnmatchcase(node.name, pattern)}
            if not matched:
                some = ", ".join(node.name for node in self.nodes if node.op_type == "Conv")[:200]
                raise InputError(f"no node matches {pattern!r}, which should stay in float", hint=f"nodes are named {some} …")
            found |= matched
        return found

    def write(self, target: str | Path, nodes: Iterable[onnx.NodeProto], constants: Iterable[onnx.TensorProto]) -> None:
        """Check and write the graph with these nodes and, of old and new constants, those that they read."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        graph = model.graph
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(nodes)
        read = {name for node in graph.node for name in node.input}
        graph.initializer.extend(
            c for c in {c.name: c for c in (*self.constants.values(), *constants)}.values() if c.name in read
        )
        model.ir_version = _IR_VERSIONS[self.opset]
        model = onnx.shape_inference.infer_shapes(model)
        onnx.checker.check_model(model, full_check=True)
        with replacing(target) as temporary:
            onnx.save(model, temporary)


def _load(path: Path, opset: int) -> onnx.ModelProto:
    if not path.is_file():
        raise InputError(f"there is no ONNX file at {path}")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
        if {entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")} != {opset}:
            model = onnx.version_converter.convert_version(model, opset)
    except (DecodeError, onnx.checker.ValidationError, onnx.version_converter.ConvertError, RuntimeError, OSError) as error:
        raise InputError(
            f"{path} cannot be used as an ONNX of opset {opset}: {str(error).splitlines()[0]}",
            hint=f"export it again with opset {OPSET}, or with `edgesod export`",
        ) from error
    return model


def _value_of(node: onnx.NodeProto) -> onnx.TensorProto:
    """Return what a Constant node holds as an initialiser."""
    attribute = node.attribute[0]
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(value)
    else:
        tensor = numpy_helper.from_array(np.asarray(value, np.float32 if "float" in attribute.name else np.int64))
    tensor.name = node.output[0]
    return tensor


def _name_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    taken: set[str] = set()
    for node in nodes:
        base = name = node.name or node.op_type
        k = 0
        while name in taken:
            k += 1
            name = f"{base}_{k}"
        node.name = name
        taken.add(name)
