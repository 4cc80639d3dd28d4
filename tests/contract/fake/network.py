"""Networks, their tensors and layers, and the parser that makes them from ONNX."""

from __future__ import annotations

import os
import weakref
from typing import Any

import onnx

from .graph import DATA_TYPES, LAYER_TYPES, OPERATORS, Fault, Graph, parse
from .property import Default


class INetworkDefinition:
    has_implicit_batch_dimension = False
    has_explicit_precision = False
    name = ""

    @property
    def num_inputs(self) -> int:
        return len(self._graph.inputs) if self._graph else 0

    @property
    def num_outputs(self) -> int:
        return len(self._outputs or ())

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    @property
    def flags(self) -> int:
        return self._flags

    def get_flag(self, flag: Any) -> bool:
        return bool(self._flags >> int(flag) & 1)

    def get_input(self, index: int) -> Any:
        return self._tensor(list(self._graph.inputs)[index]) if 0 <= index < self.num_inputs else None

    def get_output(self, index: int) -> Any:
        return self._tensor(self._outputs[index]) if 0 <= index < self.num_outputs else None

    def get_layer(self, index: int) -> Any:
        return self._layers[index] if 0 <= index < len(self._layers) else None

    def __len__(self) -> int:
        return len(self._layers)

    def __getitem__(self, index: int) -> Any:
        return self._layers[index]

    def _take(self, graph: Graph) -> None:
        self._graph, self._outputs = graph, list(graph.outputs)
        self._layers = [
            self._fake.make("ILayer", node=node, network=weakref.proxy(self), output_types={}) for node in graph.nodes
        ]

    def _tensor(self, name: str) -> Any:
        if name not in self._tensors:
            self._tensors[name] = self._fake.make("ITensor", tensor=name, network=weakref.proxy(self))
        return self._tensors[name]


class ITensor:
    allowed_formats = 1
    broadcast_across_batch = False
    is_execution_tensor = True
    is_shape_tensor = False
    location = Default("trt.TensorLocation.DEVICE")
    dynamic_range = None

    @property
    def name(self) -> str:
        return self._tensor

    @property
    def dtype(self) -> Any:
        return data_type(self._fake, self._network._graph.types.get(self._tensor, 1))

    @property
    def shape(self) -> Any:
        return self._fake.trt.Dims(self._network._graph.shapes.get(self._tensor, ()))

    @property
    def is_network_input(self) -> bool:
        return self._tensor in self._network._graph.inputs

    @property
    def is_network_output(self) -> bool:
        return self._tensor in (self._network._outputs or ())

    def set_dynamic_range(self, min: float, max: float) -> bool:
        self._dynamic_range = (float(min), float(max))
        return True

    def reset_dynamic_range(self) -> None:
        self._dynamic_range = None


class ILayer:
    metadata = ""
    num_ranks = 1

    @property
    def name(self) -> str:
        return self._node.name

    @property
    def type(self) -> Any:
        return getattr(self._fake.trt.LayerType, LAYER_TYPES.get(self._node.op_type, ""), self._fake.trt.LayerType.IDENTITY)

    @property
    def num_inputs(self) -> int:
        return len(self._node.input)

    @property
    def num_outputs(self) -> int:
        return len(self._node.output)

    @property
    def precision(self) -> Any:
        return vars(self).get("_precision") or self.get_output_type(0)

    @precision.setter
    def precision(self, value: Any) -> None:
        object.__setattr__(self, "_precision", value)

    @property
    def precision_is_set(self) -> bool:
        return "_precision" in vars(self)

    def reset_precision(self) -> None:
        vars(self).pop("_precision", None)

    def get_input(self, index: int) -> Any:
        return self._network._tensor(self._node.input[index]) if 0 <= index < self.num_inputs else None

    def get_output(self, index: int) -> Any:
        return self._network._tensor(self._node.output[index]) if 0 <= index < self.num_outputs else None

    def get_output_type(self, index: int) -> Any:
        return self._output_types.get(index) or self._network._tensor(self._node.output[index]).dtype

    def set_output_type(self, index: int, dtype: Any) -> None:
        self._output_types[index] = dtype

    def output_type_is_set(self, index: int) -> bool:
        return index in self._output_types

    def reset_output_type(self, index: int) -> None:
        self._output_types.pop(index, None)


class OnnxParser:
    num_subgraphs = 0
    flags = 0

    def __init__(self, network: Any, logger: Any) -> None:
        self._network, self._logger, self._errors = network, logger, []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def parse(self, model: Any, path: str | None = None) -> bool:
        return self._parse(bytes(model), os.path.dirname(path or ""))

    def parse_from_file(self, model: str) -> bool:
        try:
            with open(model, "rb") as file:
                content = file.read()
        except OSError as error:
            return self._fail(Fault("MODEL_DESERIALIZE_FAILED", f"Failed to open {model}: {error.strerror}"), None)
        return self._parse(content, os.path.dirname(model))

    def get_error(self, index: int) -> Any:
        return self._errors[index]

    def clear_errors(self) -> None:
        self._errors.clear()

    def set_flag(self, flag: Any) -> None:
        self.flags = self.flags | 1 << int(flag)

    def clear_flag(self, flag: Any) -> None:
        self.flags = self.flags & ~(1 << int(flag))

    def get_flag(self, flag: Any) -> bool:
        return bool(self.flags >> int(flag) & 1)

    def supports_operator(self, op_name: str) -> bool:
        return op_name in OPERATORS

    def supports_model_v2(self, model: Any, path: str | None = None) -> bool:
        return isinstance(parse(bytes(model), os.path.dirname(path or ""), self._fake.record.number), Graph)

    def _parse(self, content: bytes, folder: str) -> bool:
        flag = getattr(self._fake.trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
        if self._fake.record.number < (10, 0) and not self._network._flags >> int(flag) & 1:
            return self._fail(
                Fault("INVALID_VALUE", "networks made without EXPLICIT_BATCH are not supported by this parser"), None
            )
        found = parse(content, folder, self._fake.record.number)
        if isinstance(found, Fault):
            return self._fail(found, content)
        self._network._take(found)
        return True

    def _fail(self, fault: Fault, content: bytes | None) -> bool:
        self._errors.append(self._fake.make("ParserError", fault=fault, content=content))
        self._fake.log(self._logger, "ERROR", f"ModelImporter: {fault.text}")
        return False


class ParserError:
    def code(self) -> Any:
        return getattr(self._fake.trt.ErrorCode, self._fault.code)

    def desc(self) -> str:
        return self._fault.text

    def file(self) -> str:
        return "ModelImporter.cpp"

    def func(self) -> str:
        return "parseGraph"

    def line(self) -> int:
        return 1

    def node(self) -> int:
        return self._fault.node

    def node_name(self) -> str:
        return self._node().name

    def node_operator(self) -> str:
        return self._node().op_type

    def local_function_stack(self) -> list[str]:
        return []

    def local_function_stack_size(self) -> int:
        return 0

    def _node(self) -> Any:
        if self._fault.node < 0:
            return onnx.NodeProto()
        return onnx.load_from_string(self._content).graph.node[self._fault.node]


def data_type(fake: Any, kind: int) -> Any:
    name = DATA_TYPES.get(kind, "FLOAT")
    return getattr(fake.trt.DataType, name, None) or fake.trt.DataType.INT32  # INT64 was cast down before 10
