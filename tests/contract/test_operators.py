"""Every operator that we write into an ONNX file is one that the parser of the oldest TensorRT documents, as it documents it."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto
from torch import nn

from edgesod import assets, zoo
from edgesod.calibration.fp16 import write_fp16
from edgesod.calibration.qdq import write_half_qdq, write_qdq
from edgesod.calibration.table import read_table
from edgesod.export.frame_input import write_frame_input
from edgesod.recipe import recipe_for

from .fake.graph import OPERATORS, Fault, Graph, parse

RESIZE = {
    "mode": {"nearest", "linear"},
    "coordinate_transformation_mode": {
        "half_pixel",
        "pytorch_half_pixel",
        "tf_half_pixel_for_nn",
        "asymmetric",
        "align_corners",
    },
    "nearest_mode": {"floor", "ceil", "round_prefer_floor", "round_prefer_ceil"},
}
CAST_DOWN = {TensorProto.INT64: TensorProto.INT32, TensorProto.DOUBLE: TensorProto.FLOAT}
"""Types that the parser narrows by itself."""
METHOD = "percentile-99.999"


def _written(kind: str, folder: Path) -> Path:
    """Write the shipped network in a precision and return the file."""
    model, target = zoo.shipped("u2netp"), folder / f"{kind}.onnx"
    if kind.endswith(" of frames"):
        recipe = recipe_for("u2netp", "fp32").model_copy(update={"frame_hw": (720, 1280)})
        write_frame_input(_written(kind.removesuffix(" of frames"), folder), target, recipe)
        return target
    table = read_table(assets.tables() / "u2netp-320.json")
    if kind == "fp32":
        return model.onnx
    if kind == "fp16":
        write_fp16(model.onnx, target)
    elif kind == "fp16 with int8":
        write_half_qdq(model.onnx, target, table, METHOD)
    else:
        write_qdq(model.onnx, target, table, METHOD, scheme="cpu" if kind == "int8 for CPUs" else "tensorrt")
    return target


def _undocumented(graph: Graph) -> set[str]:
    """Return what of a graph is not documented for TensorRT 8.5: an operator, its type, a mode of Resize, an output of MaxPool."""
    found = set()
    for node in graph.nodes:
        if node.op_type not in OPERATORS:
            found.add(node.op_type)
            continue
        kind = graph.types[node.input[0] if node.input else node.output[0]]
        if node.op_type == "Cast" and kind == TensorProto.UINT8 and node.input[0] in graph.inputs:
            continue  # the changelog of 8.5 has it: "UINT8 I/O types"
        kind = TensorProto.DataType.Name(CAST_DOWN.get(kind, kind))
        if kind not in OPERATORS[node.op_type]:
            found.add(f"{node.op_type} of {kind}")
        modes = {attribute.name: attribute.s.decode() for attribute in node.attribute if attribute.name in RESIZE}
        if node.op_type == "Resize":
            found |= {f"Resize with {name} {mode}" for name, mode in modes.items() if mode not in RESIZE[name]}
        if node.op_type == "MaxPool" and len(node.output) > 1:
            found.add("MaxPool with indices")
    return found


@pytest.mark.parametrize("kind", ["fp32", "fp16", "int8", "fp32 of frames", "int8 of frames"])
def test_what_tensorrt_gets_is_documented_for_the_oldest(kind: str, tmp_path: Path) -> None:
    graph = parse(_written(kind, tmp_path).read_bytes(), "", (8, 5))
    assert isinstance(graph, Graph), graph
    assert _undocumented(graph) == set()


@pytest.mark.parametrize("version", [(10, 3), (10, 16), (11, 4)])
def test_the_file_for_strong_typing_is_taken_from_10_on(version: tuple[int, int], tmp_path: Path) -> None:
    content = _written("fp16 with int8 of frames", tmp_path).read_bytes()
    graph = parse(content, "", version)
    assert isinstance(graph, Graph), graph
    assert {node.op_type for node in graph.nodes} <= OPERATORS.keys()
    assert isinstance(parse(content, "", (8, 6)), Fault), "its opset is beyond 17"


@pytest.mark.parametrize(("version", "is_taken"), [((8, 5), False), ((8, 6), False), ((10, 3), True), ((11, 4), True)])
def test_weights_that_are_integers_already_are_not_for_versions_before_10(version: tuple[int, int], is_taken: bool) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[1, 1, 8, 8] x) => (float[1, 1, 8, 8] y)
    <int8[1, 1, 1, 1] w = {3}, float[1] s = {0.5}, int8[1] z = {0}> {
        f = DequantizeLinear <axis = 0> (w, s, z)
        y = Conv (x, f)
    }"""
    found = parse(onnx.parser.parse_model(text).SerializeToString(), "", version)
    assert isinstance(found, Graph) == is_taken, found


def test_unsigned_bytes_are_cast_before_anything_else() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (uint8[1, 8, 8, 3] x) => (float[1, 3, 8, 8] y) {
        a = Transpose <perm = [0, 3, 1, 2]> (x)
        y = Cast <to = 1> (a)
    }"""
    fault = parse(onnx.parser.parse_model(text).SerializeToString(), "", (8, 5))
    assert isinstance(fault, Fault)
    assert fault.text == "Transpose: UINT8 can only be cast to FP32 or FP16"


def test_int8_for_cpus_has_documented_operators_and_unsigned_integers_that_tensorrt_refuses(tmp_path: Path) -> None:
    content = _written("int8 for CPUs", tmp_path).read_bytes()
    assert {node.op_type for node in onnx.load_from_string(content).graph.node} <= OPERATORS.keys()
    fault = parse(content, "", (8, 5))
    assert isinstance(fault, Fault)
    assert "INT8" in fault.text


def test_what_is_not_documented_is_found() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[1, 1, 8, 8] x) => (float y) {
        a = Hardmax (x)
        b, indices = MaxPool <kernel_shape = [2, 2]> (a)
        scales = Constant <value = float[4] {1, 1, 2, 2}> ()
        c = Resize <mode = "cubic"> (b, , scales)
        d = Cast <to = 9> (c)
        y = Neg (d)
    }"""
    graph = Graph(onnx.parser.parse_model(text))
    assert _undocumented(graph) == {"Hardmax", "MaxPool with indices", "Resize with mode cubic", "Neg of BOOL"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bapoolnet", "basnet", "poolnet", "srm", "u2net", "u2netp-fast"])
def test_every_network_exports_documented_operators(name: str, tmp_path: Path) -> None:
    from edgesod.export.torch_export import export_onnx
    from trainer import networks

    known = {"bapoolnet", "basnet", "poolnet", "srm", "u2net", "u2netp", "u2netp-fast"}
    assert set(networks.names()) == known, "name new ones here"
    export_onnx(_narrow(networks.create(name)), (128, 128), tmp_path / "network.onnx")
    assert _undocumented(Graph(onnx.load(str(tmp_path / "network.onnx")))) == set()


def _narrow(network: nn.Module) -> nn.Module:
    """Give every convolution an eighth of its channels: the operators are the same, and the export is ten times as fast."""
    for part in list(network.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, nn.Conv2d):
                ends = _eighth(child.in_channels), _eighth(child.out_channels), child.kernel_size
                where = {"stride": child.stride, "padding": child.padding, "dilation": child.dilation}
                setattr(part, name, nn.Conv2d(*ends, **where, bias=child.bias is not None))
            elif isinstance(child, nn.BatchNorm2d):
                setattr(part, name, nn.BatchNorm2d(_eighth(child.num_features)))
    return network.eval()


def _eighth(channels: int) -> int:
    return channels // 8 + channels % 8  # what is left of 8 are a picture's channels, or maps that were concatenated
