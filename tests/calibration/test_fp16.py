"""FP16 files are valid, keep FP32 at their ends, and compute nearly the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, parser

from edgesod.calibration.fp16 import write_fp16
from edgesod.errors import InputError

# every operator the six networks are made of, Resize by sizes and by scales
ZOO = """
<ir_version: 8, opset_import: ["":17]>
zoo (float[1,3,16,16] image) => (float[1,1,16,16] saliency, float[1,4,16,16] features)
{
    sums = Conv <pads=[1,1,1,1]> (image, kernel, bias)
    normal = BatchNormalization (sums, one4, bias, bias, one4)
    features = Relu (normal)
    pooled = MaxPool <kernel_shape=[2,2], strides=[2,2]> (features)
    mean = AveragePool <kernel_shape=[2,2], strides=[2,2]> (pooled)
    sizes = Constant <value=int64[4] {1,4,8,8}> ()
    up = Resize <mode="linear"> (mean, , , sizes)
    scales = Constant <value=float[4] {1.0,1.0,2.0,2.0}> ()
    upper = Resize <mode="linear"> (up, , scales)
    both = Concat <axis=1> (upper, features)
    half = Slice (both, start, end, axes)
    added = Add (half, features)
    low = Constant <value=float {0.1}> ()
    high = Constant <value_float=5.0> ()
    clipped = Clip (added, low, high)
    mixed = MatMul (clipped, square)
    share = Softmax <axis=1> (mixed)
    weighted = Mul (share, clipped)
    logits = Conv (weighted, head)
    saliency = Sigmoid (logits)
}
"""


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    model = parser.parse_model(ZOO)
    shapes = {"kernel": (4, 3, 3, 3), "bias": (4,), "square": (16, 16), "head": (1, 4, 1, 1)}
    values: dict[str, NDArray[np.generic]] = {k: generator.normal(0, 0.3, v).astype(np.float32) for k, v in shapes.items()}
    values |= {"one4": np.ones(4, np.float32), "start": np.array([2]), "end": np.array([6]), "axes": np.array([1])}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    onnx.save(model, tmp_path / "zoo.onnx")
    return tmp_path / "zoo.onnx"


def run(path: Path) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(1).normal(0, 1, session.get_inputs()[0].shape).astype(np.float32)
    outputs: list[NDArray[np.float32]] = session.run(None, {"image": image})
    return outputs


def types(path: Path) -> dict[str, int]:
    """Element type of every tensor by name."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph
    found = {entry.name: entry.type.tensor_type.elem_type for entry in (*graph.input, *graph.value_info, *graph.output)}
    return found | {constant.name: constant.data_type for constant in graph.initializer}


def test_every_operator_of_the_networks_computes_in_fp16_between_fp32_ends(zoo: Path, tmp_path: Path) -> None:
    write_fp16(zoo, tmp_path / "half.onnx")
    model = onnx.load(tmp_path / "half.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, [entry.version for entry in model.opset_import]) == (8, [17])
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    assert Counter(node.op_type for node in model.graph.node)["Cast"] == 3  # one input, two outputs
    types_of = types(tmp_path / "half.onnx")
    ends = {"image", "saliency", "features"}
    assert {types_of[name] for name in ends} == {TensorProto.FLOAT}
    singles = {name for name, kind in types_of.items() if kind == TensorProto.FLOAT} - ends
    assert singles == {"scales"}
    for got, expected in zip(run(tmp_path / "half.onnx"), run(zoo), strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, atol=5e-3, rtol=5e-3)
        assert np.abs(got - expected).max() > 0


def test_named_nodes_stay_in_fp32_with_casts_round_them(zoo: Path, tmp_path: Path) -> None:
    write_fp16(zoo, tmp_path / "half.onnx", ["Softmax*", "MatMul*"])
    types_of = types(tmp_path / "half.onnx")
    assert types_of["mixed"] == types_of["share"] == types_of["square"] == TensorProto.FLOAT
    assert types_of["logits"] == TensorProto.FLOAT16
    casts = [node.output[0] for node in onnx.load(tmp_path / "half.onnx").graph.node if node.op_type == "Cast"]
    assert sorted(casts) == ["clipped/float32", "features", "image/float16", "saliency", "share/float16"]
    np.testing.assert_allclose(run(tmp_path / "half.onnx")[0], run(zoo)[0], atol=5e-3)
    with pytest.raises(InputError, match="'Sotfmax'"):
        write_fp16(zoo, tmp_path / "half.onnx", ["Sotfmax"])


def test_a_node_whose_weights_do_not_fit_stays_in_fp32(zoo: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = onnx.load(zoo)
    square = next(constant for constant in model.graph.initializer if constant.name == "square")
    square.CopyFrom(numpy_helper.from_array(np.full((16, 16), 1e6, np.float32), "square"))
    onnx.save(model, zoo)
    write_fp16(zoo, tmp_path / "half.onnx")
    assert types(tmp_path / "half.onnx")["square"] == TensorProto.FLOAT
    assert "square" in caplog.text


def test_nodes_without_names_or_with_the_same_get_their_own(tmp_path: Path) -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["":17]> g (float[1,1,4,4] image) => (float[1,1,4,4] saliency)'
        "{ a = Relu(image) b = Relu(a) c = Relu(b) saliency = Sigmoid(c) }"
    )
    for node in model.graph.node[:2]:
        node.name = "same"
    onnx.save(model, tmp_path / "g.onnx")
    write_fp16(tmp_path / "g.onnx", tmp_path / "half.onnx", ["same"])
    names = [node.name for node in onnx.load(tmp_path / "half.onnx").graph.node if node.op_type in ("Relu", "Sigmoid")]
    assert names == ["same", "same_1", "Relu", "Sigmoid"]
    assert types(tmp_path / "half.onnx")["b"] == TensorProto.FLOAT16


def test_an_older_opset_is_converted(tmp_path: Path) -> None:
    node = helper.make_node("Softmax", ["image"], ["saliency"], axis=3)
    entries = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 4, 4]) for name in ("image", "saliency")]
    graph = helper.make_graph([node], "g", entries[:1], entries[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), tmp_path / "old.onnx")
    write_fp16(tmp_path / "old.onnx", tmp_path / "half.onnx")
    assert onnx.load(tmp_path / "half.onnx").opset_import[0].version == 17
    np.testing.assert_allclose(run(tmp_path / "half.onnx")[0], run(tmp_path / "old.onnx")[0], atol=1e-3)


def test_control_flow_and_what_is_no_onnx_are_input_errors(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [helper.make_node("Relu", ["image"], ["x"])], "b", [], [helper.make_tensor_value_info("x", 1, [1])]
    )
    node = helper.make_node("If", ["which"], ["saliency"], then_branch=branch, else_branch=branch)
    entries = [helper.make_tensor_value_info("which", TensorProto.BOOL, []), helper.make_tensor_value_info("image", 1, [1])]
    graph = helper.make_graph([node], "g", entries, [helper.make_tensor_value_info("saliency", 1, [1])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "if.onnx")
    with pytest.raises(InputError, match="control flow"):
        write_fp16(tmp_path / "if.onnx", tmp_path / "half.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    for path in (tmp_path / "text.onnx", tmp_path / "absent.onnx"):
        with pytest.raises(InputError, match=path.name):
            write_fp16(path, tmp_path / "half.onnx")
    assert not (tmp_path / "half.onnx").exists()
