"""What the inspector tells of an engine: JSON as the version writes it."""

from __future__ import annotations

import json
from typing import Any

from .plan import Layer

_INSPECTED = {"FP32": "Row major linear FP32", "FP16": "Row major linear FP16 format", "INT32": "Row major Int32"}
_INSPECTED |= {"INT8": "Thirty-two wide channel vectorized row major Int8 format", "BF16": "Row major linear BF16 format"}
_SHORT = {"FP32": "Float", "FP16": "Half", "BF16": "BFloat16", "INT8": "Int8", "INT32": "Int32"}


class EngineInspector:
    execution_context = None

    def get_engine_information(self, format: Any) -> str:
        layers = [self._layer(layer) for layer in self._shown()]
        if format.name == "ONELINE":
            return "\n".join(["Layers:", *(item if isinstance(item, str) else item["Name"] for item in layers)]) + "\n"
        if self._fake.record.number >= (11, 0):
            return json.dumps({"Layers": layers, "I/O Tensors": [self._tensor(name) for name in self._engine._names()]})
        return json.dumps({"Layers": layers, "Bindings": self._engine._names()})

    def get_layer_information(self, layer_index: int, format: Any) -> str:
        layer = self._layer(self._shown()[layer_index])
        if format.name == "ONELINE":
            return layer if isinstance(layer, str) else layer["Name"]
        return json.dumps(layer)

    def _verbosity(self) -> str:
        return {0: "names", 1: "none", 2: "detailed"}[self._engine._plan.verbosity]

    def _shown(self) -> list[Layer]:
        """The engine's layers, and the reformatting ones that TensorRT puts between FP32 ends and the rest."""
        if self._verbosity() == "none":
            return []
        layers = self._engine._plan.layers
        first, last = layers[0], layers[-1]
        shown = list(layers)
        if first.precision != "FP32" and first.operator not in ("Cast", "DLA"):
            name = f"Reformatting CopyNode for Input Tensor 0 to {first.name}"
            shown.insert(0, Layer(name, "Reformat", first.precision, first.inputs[:1], first.inputs[:1]))
        if (last.gives or last.precision) != "FP32" and last.operator not in ("Cast", "DLA"):
            name = f"Reformatting CopyNode for Output Tensor 0 to {last.name}"
            shown.append(Layer(name, "Reformat", "FP32", last.outputs[:1], last.outputs[:1]))
        return shown

    def _layer(self, layer: Layer) -> Any:
        if self._verbosity() == "names":
            return layer.name
        names = _INSPECTED
        kind = {"Conv": "CaskConvolution", "ConvTranspose": "CaskDeconvolutionV2"}.get(layer.operator, layer.operator)
        if self._fake.record.number >= (10, 0) and kind == layer.operator and kind not in ("Reformat", "DLA"):
            names, kind = _SHORT, "kgen"  # what its newer compiler fused
        shapes = self._engine._graph.shapes
        constants = self._engine._graph.constants

        def tensors(tensors: list[str], precision: str) -> list[dict[str, Any]]:
            return [
                {"Name": t, "Location": "Device", "Dimensions": list(shapes.get(t, ())), "Format/Datatype": names[precision]}
                for t in tensors
                if t and t not in constants
            ]

        into = "FP32" if layer.operator == "Reformat" and "Input" in layer.name else layer.precision
        shown = {
            "Name": layer.name,
            "LayerType": kind,
            "Inputs": tensors(layer.inputs, into),
            "Outputs": tensors(layer.outputs, layer.gives or layer.precision),
            "ParameterType": "Convolution" if layer.operator == "Conv" else layer.operator,
            "TacticName": "",
            "Metadata": f"[ONNX Layer: {layer.name}]",
        }
        if layer.operator == "Conv":
            shown["Weights"] = {"Type": _SHORT[layer.precision], "Count": 1}
        return shown

    def _tensor(self, name: str) -> dict[str, Any]:
        engine = self._engine
        profiles = [
            [list(s) for s in engine.get_tensor_profile_shape(name, k)] for k in range(engine.num_optimization_profiles)
        ]
        return {
            "Name": name,
            "IOMode": engine.get_tensor_mode(name).name.capitalize(),
            "DataType": engine.get_tensor_dtype(name).name.capitalize(),
            "Dimensions": list(engine._tensor(name)[1]),
            "Location": "Device",
            "IsShapeInferenceIO": False,
            "ProfileInfo": [
                {"MinShape": low, "OptShape": opt, "MaxShape": high, "Format": engine.get_tensor_format_desc(name)}
                for low, opt, high in profiles
            ],
        }
