"""What an engine was built in is read out of both shapes of the inspector's JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgesod.builder.tensorrt_readback import check_types, layer_types
from edgesod.errors import BuildError
from edgesod.recipe import Precision

INT8 = "Thirty-two wide channel vectorized row major Int8 format"
FP16 = "Channel major FP16 format where channel % 8 == 0"
FP32 = "Row major linear FP32"


def tensor(words: str) -> dict[str, Any]:
    return {"Name": "t", "Location": "Device", "Dimensions": [1, 8, 4, 4], "Format/Datatype": words}


def conv(words: str, weights: str | None = None, out: str | None = None) -> dict[str, Any]:
    layer: dict[str, Any] = {
        "Name": "c",
        "LayerType": "CaskConvolution",
        "Inputs": [tensor(words)],
        "Outputs": [tensor(out or words)],
    }
    return layer | ({"Weights": {"Type": weights, "Count": 9}} if weights else {})


def kernel(words: str) -> dict[str, Any]:
    return {"Name": "k", "LayerType": "kgen", "Inputs": [tensor(words)], "Outputs": [tensor(words)]}


WAIT = {"Name": "w", "LayerType": "wait"}
CAMERA = {"Name": "f", "LayerType": "Cast", "Inputs": [tensor("Row major linear UInt8")], "Outputs": [tensor(FP32)]}
REFORMAT = {"Name": "r", "LayerType": "Reformat", "Inputs": [tensor(FP32)], "Outputs": [tensor(FP16)]}


def information(*layers: Any, new: bool = False) -> str:
    ends = {"I/O Tensors": [{"Name": "image", "DataType": "Float"}]} if new else {"Bindings": ["image", "saliency"]}
    return json.dumps({"Layers": list(layers)} | ends)


@pytest.mark.parametrize("new", [False, True])
def test_types_are_those_of_weights_else_of_what_is_read(new: bool) -> None:
    found = layer_types(
        information(
            conv(INT8, "Int8", FP16),
            conv(FP16, "Half"),
            kernel("Half"),
            kernel("BFloat16"),
            REFORMAT,
            WAIT,
            CAMERA,
            conv(FP32),
            new=new,
        )
    )
    assert found == {"fp16": 2, "fp32": 2, "int8": 1, "bf16": 1}


@pytest.mark.parametrize(
    ("precision", "layers"),
    [
        ("fp32", [conv(FP32, "Float"), kernel("Float"), REFORMAT]),
        ("fp32", [CAMERA, conv(FP32, "Float")]),
        ("fp16", [CAMERA, conv(FP16, "Half")]),
        ("fp16", [conv(FP16, "Half"), conv(FP32, "Float"), conv(FP16, "Half")]),
        ("fp16", [kernel("Half"), kernel("Float"), kernel("Float")]),
        ("int8", [conv(INT8, "Int8"), conv(INT8, "Int8", FP16), conv(FP16, "Half"), kernel("Half")]),
    ],
)
def test_what_was_asked_for_passes(precision: Precision, layers: list[Any]) -> None:
    check_types(information(*layers), precision)


@pytest.mark.parametrize(
    ("precision", "layers", "message"),
    [
        ("fp32", [conv(FP32, "Float"), kernel("Half")], "fp32 was asked for"),
        ("fp16", [conv(FP32, "Float"), kernel("Float")], "1 in fp32"),
        ("fp16", [conv(FP16, "Half"), kernel(INT8)], "fp16 was asked for"),
        ("fp16", [REFORMAT, kernel("Float")], "1 in fp32"),
        ("int8", [conv(INT8, "Int8"), conv(FP16, "Half"), conv(FP16, "Half")], "2 in fp16, 1 in int8"),
        ("int8", [kernel("Half")], "int8 was asked for"),
        ("fp16", ["names only", "of two layers"], "cannot be read back"),
    ],
)
def test_another_precision_is_a_failed_build(precision: Precision, layers: list[Any], message: str) -> None:
    with pytest.raises(BuildError, match=message) as caught:
        check_types(information(*layers), precision)
    assert caught.value.exit_code == 5
    assert caught.value.hint
