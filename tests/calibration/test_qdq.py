"""INT8 files compute what their integers say, close to FP32, and hold pairs where their backend wants them."""

from __future__ import annotations

import platform
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgesod import assets, zoo
from edgesod.calibration.headroom import without_headroom
from edgesod.calibration.qdq import write_half_qdq, write_qdq
from edgesod.calibration.schemes import Scheme
from edgesod.calibration.table import CalibrationTable, Range, read_table
from edgesod.errors import InputError, StaleError
from edgesod.export.cheap_maps import write_cheap_maps
from edgesod.processing.pictures import photograph
from edgesod.processing.preprocess import preprocess
from edgesod.recipe import recipe_for

METHOD = "percentile-99.999"


def run(path: Path, image: NDArray[np.float32], *unwanted: str) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"], disabled_optimizers=list(unwanted))
    output: NDArray[np.float32] = session.run(None, {"image": image})[0]
    return output


def constants(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    return {constant.name: numpy_helper.to_array(constant) for constant in model.graph.initializer}


def convs(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """The convolutions by the attribute they have in torch."""
    return {node.name.split("/")[-2]: node for node in model.graph.node if node.op_type == "Conv"}


def compile_openvino(path: Path) -> openvino.CompiledModel:
    return openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def one_conv(path: Path, weights: NDArray[np.float32], bias: NDArray[np.float32], relu: bool) -> CalibrationTable:
    """Write a convolution of a picture as ONNX, and return a table that gives it [−1, 2] for input and [−3, 5] for output."""
    logits, shape = "sums" if relu else "saliency", [1, len(weights), 8, 8]
    nodes = [helper.make_node("Conv", ["image", "weights", "bias"], [logits], name="conv", pads=[1, 1, 1, 1])]
    nodes += [helper.make_node("Relu", ["sums"], ["saliency"], name="relu")] if relu else []
    nodes += [helper.make_node("Conv", ["saliency", "ones"], ["end"], name="next")]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", 1, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("end", 1, shape)],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(bias, "bias"),
            numpy_helper.from_array(np.eye(len(weights), dtype=np.float32)[:, :, None, None], "ones"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    ranges: dict[str, Range] = {
        "image": (-1.0, 2.0),
        "sums": (-3.0, 5.0),
        "saliency": (0.0 if relu else -3.0, 5.0),
        "end": (0.0, 5.0),
    }
    return CalibrationTable.model_validate(
        {
            "model": "one",
            "onnx_sha256": "0" * 64,
            "size_hw": (8, 8),
            "images": "none",
            "num_images": 1,
            "preprocessing": {},
            "created": "",
            "ranges": {tensor: {"minmax": value} for tensor, value in ranges.items()},
        }
    )


@pytest.mark.parametrize("scheme", ["cpu", "tensorrt"])
def test_a_file_is_close_to_fp32_and_valid(
    chain_onnx: Path, table: CalibrationTable, inputs: list[NDArray[np.float32]], tmp_path: Path, scheme: Scheme
) -> None:
    write_qdq(chain_onnx, tmp_path / "int8.onnx", table, METHOD, scheme=scheme)
    model = onnx.load(tmp_path / "int8.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, [entry.version for entry in model.opset_import]) == (8, [17])
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    for image in inputs:
        expected = run(chain_onnx, image)
        difference = np.abs(run(tmp_path / "int8.onnx", image) - expected)
        assert 0 < difference.mean() < 0.1 * expected.std()


def test_openvino_and_onnxruntime_agree_on_the_cpu_file(
    chain_onnx: Path, table: CalibrationTable, inputs: list[NDArray[np.float32]], tmp_path: Path
) -> None:
    write_qdq(chain_onnx, tmp_path / "int8.onnx", table, METHOD, scheme="cpu")
    compiled = compile_openvino(tmp_path / "int8.onnx")
    for image in inputs:
        expected = run(tmp_path / "int8.onnx", image)
        assert np.abs(compiled(image)[0] - expected).mean() < 0.05 * expected.std()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="OpenVINO's 8-bit kernels here are those of x86")
def test_openvino_runs_the_chain_in_8_bits(chain_onnx: Path, table: CalibrationTable, tmp_path: Path) -> None:
    write_qdq(chain_onnx, tmp_path / "int8.onnx", table, METHOD, scheme="cpu")
    kinds: Counter[tuple[str, str]] = Counter()
    for operation in compile_openvino(tmp_path / "int8.onnx").get_runtime_model().get_ordered_ops():
        info = {key: value.astype(str) for key, value in operation.get_rt_info().items()}
        kinds[info["layerType"], info["runtimePrecision"]] += 1
    assert kinds["Convolution", "u8"] == 5
    assert kinds["Convolution", "f32"] == 1  # the one that fuses the maps
    assert kinds["Concatenation", "u8"] == 1
    assert kinds["Pooling", "u8"] == 2


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("scheme", ["cpu", "tensorrt"])
def test_integers_are_those_of_torchs_quantiser(tmp_path: Path, scheme: Scheme, relu: bool) -> None:
    generator = np.random.default_rng(0)
    weights = (
        generator.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32) * np.array([1, 0.1, 3, 0.5], np.float32)[:, None, None, None]
    )
    bias = generator.normal(0, 0.5, 4).astype(np.float32)
    image = generator.uniform(-1.5, 2.5, (1, 3, 8, 8)).astype(np.float32)
    table = one_conv(tmp_path / "one.onnx", weights, bias, relu)
    write_qdq(tmp_path / "one.onnx", tmp_path / "int8.onnx", table, "minmax", scheme=scheme)

    def fake(values: torch.Tensor, low: float, high: float) -> torch.Tensor:
        if scheme == "tensorrt":
            return torch.fake_quantize_per_tensor_affine(values, max(-low, high) / 127, 0, -128, 127)
        return torch.fake_quantize_per_tensor_affine(values, (high - low) / 255, round(-low * 255 / (high - low)), 0, 255)

    scales = torch.from_numpy(np.abs(weights).max((1, 2, 3)) / 127)
    quantised = torch.fake_quantize_per_channel_affine(
        torch.from_numpy(weights), scales, torch.zeros(4, dtype=torch.int32), 0, -127, 127
    )
    sums = torch.nn.functional.conv2d(fake(torch.from_numpy(image), -1, 2), quantised, torch.from_numpy(bias), padding=1)
    low = 0.0 if relu else -3.0
    expected = fake(torch.relu(sums) if relu else sums, low, 5).numpy()
    step = 5 / 127 if scheme == "tensorrt" else (5 - low) / 255
    # a sum that falls between two integers may go either way, and the CPU scheme rounds the bias
    assert np.abs(run(tmp_path / "int8.onnx", image) - expected).max() < 1.01 * step
    assert np.abs(run(tmp_path / "int8.onnx", image) - expected).mean() < 0.05 * step


def test_cpu_chains_carry_one_pair_per_tensor_and_float_only_at_the_end(
    chain_onnx: Path, table: CalibrationTable, tmp_path: Path
) -> None:
    write_qdq(chain_onnx, tmp_path / "int8.onnx", table, METHOD, scheme="cpu")
    model = onnx.load(tmp_path / "int8.onnx")
    values = constants(model)
    producer = {output: node for node in model.graph.node for output in node.output}
    nodes = {
        kind: [n for n in model.graph.node if n.op_type == kind]
        for kind in ("MaxPool", "AveragePool", "Resize", "Add", "Concat")
    }
    for node in nodes["MaxPool"] + nodes["AveragePool"] + nodes["Add"] + nodes["Resize"][:1]:
        for name in node.input:
            assert name in values or not name or producer[name].op_type == "DequantizeLinear", node.name
    for node in nodes["MaxPool"] + nodes["Resize"][:1] + nodes["Concat"][:1]:  # one scale: they run on the integers
        after = next(n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == node.output[0]).input[1]
        for name in node.input if node.op_type == "Concat" else node.input[:1]:
            assert values[producer[name].input[1]] == values[after]
            members = (node.output[0], name.split("/dequantised")[0])
            lows, highs = zip(*(table.range_of(tensor, METHOD) for tensor in members), strict=True)
            assert values[after] >= 0.999 * (max(highs) - min(0, *lows)) / 255, "a shared scale holds every member's range"
    quantised = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len({node.input[0] for node in quantised}) == len(quantised)
    assert all(values[node.input[2]].dtype == np.uint8 for node in quantised)
    assert not [node for node in quantised if producer.get(node.input[0], node).op_type == "Conv"]
    assert all(values[node.input[2]] == 0 for node in quantised if producer.get(node.input[0], node).op_type == "Relu")
    for name, node in convs(model).items():
        assert (producer.get(node.input[1]) is None) == (name == "fuse")
        if name != "fuse":
            weights, biases = (producer[node.input[k]].input for k in (1, 2))
            assert values[weights[0]].dtype == np.int8
            assert values[biases[0]].dtype == np.int32
            scale = values[producer[node.input[0]].input[1]] * values[weights[1]]
            np.testing.assert_allclose(values[biases[1]], scale, rtol=1e-6)
    assert not [node for node in quantised if "side" in node.input[0] or "fuse" in node.input[0]]


def test_maps_made_in_blocks_stay_in_float(chain_onnx: Path, table: CalibrationTable, tmp_path: Path) -> None:
    assert write_cheap_maps(chain_onnx, tmp_path / "cheap.onnx")
    write_qdq(tmp_path / "cheap.onnx", tmp_path / "int8.onnx", table, METHOD, scheme="cpu")
    graph = onnx.load(tmp_path / "int8.onnx").graph
    blocked = [node for node in graph.node if node.op_type == "DepthToSpace"]
    assert len(blocked) == 2
    quantised = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    assert not quantised & {name for node in blocked for name in (*node.input, *node.output)}
    makers = [node for node in graph.node if node.output[0] in {node.input[0] for node in blocked}]
    assert all(node.input[1].endswith("/weight/dequantised") for node in makers)
    image = np.random.default_rng(0).normal(0, 1, (1, 3, 64, 96)).astype(np.float32)
    assert np.abs(run(tmp_path / "int8.onnx", image) - run(chain_onnx, image)).mean() < 0.01


def test_tensorrt_gets_symmetric_pairs_at_convolutions_and_one_residual_branch(
    chain_onnx: Path, table: CalibrationTable, tmp_path: Path
) -> None:
    write_qdq(chain_onnx, tmp_path / "int8.onnx", table, "percentile-99.99", scheme="tensorrt")
    model = onnx.load(tmp_path / "int8.onnx")
    values = constants(model)
    producer = {output: node for node in model.graph.node for output in node.output}

    def is_dequantised(name: str) -> bool:
        return name in producer and producer[name].op_type == "DequantizeLinear"

    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert values[node.input[2]].dtype == np.int8
            assert not values[node.input[2]].any()
            assert (values[node.input[1]] > 0).all()
        elif node.op_type == "Add":
            assert sum(map(is_dequantised, node.input)) == 1
        elif node.op_type != "Conv":
            assert not any(map(is_dequantised, node.input)), node.name
    for name, node in convs(model).items():
        is_quantised = name in ("first", "second", "third")
        assert [is_dequantised(name) for name in node.input] == [is_quantised, is_quantised, False]
    # weights are floats behind a pair, and it finds integers that use all of their range
    half = producer[convs(model)["third"].input[1]]
    whole = producer[half.input[0]]
    assert (whole.op_type, half.input[1:]) == ("QuantizeLinear", whole.input[1:])
    weights, scales = (values[name] for name in whole.input[:2])
    assert (weights.dtype, weights.shape[:1], scales.shape) == (np.float32, (16,), (16,))
    steps = weights / scales[:, None, None, None]
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)
    assert np.abs(np.rint(steps)).max(axis=(1, 2, 3)).tolist() == [127] * 16


def test_reduced_weights_stay_within_7_bits(
    chain_onnx: Path, table: CalibrationTable, inputs: list[NDArray[np.float32]], tmp_path: Path
) -> None:
    write_qdq(chain_onnx, tmp_path / "int8.onnx", table, METHOD, scheme="cpu", reduce_weights=True)
    weights = [
        value for value in constants(onnx.load(tmp_path / "int8.onnx")).values() if value.dtype == np.int8 and value.ndim == 4
    ]
    assert len(weights) == 5
    assert max(int(np.abs(value.astype(np.int32)).max()) for value in weights) == 64
    # the worst pair of products still fits 16 bits
    assert 2 * 255 * 64 < 2**15
    expected = run(chain_onnx, inputs[0])
    assert np.abs(run(tmp_path / "int8.onnx", inputs[0]) - expected).mean() < 0.1 * expected.std()


def test_named_nodes_stay_in_float(chain_onnx: Path, table: CalibrationTable, tmp_path: Path) -> None:
    write_qdq(chain_onnx, tmp_path / "int8.onnx", table, METHOD, scheme="cpu", float_nodes=["*/first/*", "*/third/Conv"])
    model = onnx.load(tmp_path / "int8.onnx")
    values = constants(model)
    in_float = {name for name, node in convs(model).items() if node.input[1] in values}
    assert in_float == {"first", "third", "side1", "fuse"}  # side1 makes a map of what is float now
    with pytest.raises(InputError, match="'stage9/\\*'"):
        write_qdq(chain_onnx, tmp_path / "int8.onnx", table, METHOD, scheme="cpu", float_nodes=["stage9/*"])


@pytest.mark.parametrize("scheme", ["cpu", "tensorrt"])
def test_a_channel_without_weights_keeps_its_bias(tmp_path: Path, scheme: Scheme) -> None:
    weights = np.random.default_rng(0).normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32)
    weights[1], weights[2] = 0, 1e-9
    bias = np.array([0.1, 4, 2, 0], np.float32)
    table = one_conv(tmp_path / "one.onnx", weights, bias, relu=True)
    write_qdq(tmp_path / "one.onnx", tmp_path / "int8.onnx", table, "minmax", scheme=scheme)
    got = run(tmp_path / "int8.onnx", np.ones((1, 3, 8, 8), np.float32))
    np.testing.assert_allclose(got[0, 1:3], np.broadcast_to(bias[1:3, None, None], (2, 8, 8)), atol=5 / 127)


@pytest.mark.parametrize("scheme", ["cpu", "tensorrt"])
def test_a_tensor_that_was_always_zero_stays_in_float(tmp_path: Path, scheme: Scheme) -> None:
    weights = np.random.default_rng(0).normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32)
    table = one_conv(tmp_path / "one.onnx", weights, np.zeros(4, np.float32), relu=True)
    silent = table.model_copy(update={"ranges": table.ranges | {"saliency": {"minmax": (0.0, 0.0)}}})
    write_qdq(tmp_path / "one.onnx", tmp_path / "int8.onnx", silent, "minmax", scheme=scheme)
    image = np.random.default_rng(1).uniform(-1, 2, (1, 3, 8, 8)).astype(np.float32)
    expected = run(tmp_path / "one.onnx", image)
    assert expected.max() > 1
    np.testing.assert_allclose(run(tmp_path / "int8.onnx", image), expected, atol=0.1)


def test_a_table_of_another_network_is_stale(chain_onnx: Path, tmp_path: Path) -> None:
    table = one_conv(tmp_path / "one.onnx", np.ones((4, 3, 3, 3), np.float32), np.zeros(4, np.float32), relu=True)
    with pytest.raises(StaleError, match="no minmax range"):
        write_qdq(chain_onnx, tmp_path / "int8.onnx", table, "minmax", scheme="cpu")
    assert not (tmp_path / "int8.onnx").exists()


def test_the_strongly_typed_file_is_fp16_between_fp32_ends_and_close_to_fp32(
    chain_onnx: Path, table: CalibrationTable, inputs: list[NDArray[np.float32]], tmp_path: Path
) -> None:
    write_half_qdq(chain_onnx, tmp_path / "half.onnx", table, METHOD)
    write_qdq(chain_onnx, tmp_path / "single.onnx", table, METHOD, scheme="tensorrt")
    model = onnx.load(tmp_path / "half.onnx")
    assert (model.ir_version, [entry.version for entry in model.opset_import]) == (9, [19])
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {entry.name: entry.type.tensor_type.elem_type for entry in (*graph.input, *graph.value_info, *graph.output)}
    ends = {entry.name for entry in (*graph.input, *graph.output)}
    assert {types[name] for name in ends} == {TensorProto.FLOAT}
    assert {kind for name, kind in types.items() if name not in ends} == {TensorProto.FLOAT16, TensorProto.INT8}
    kinds, expected_kinds = (
        Counter(node.op_type for node in m.graph.node) for m in (model, onnx.load(tmp_path / "single.onnx"))
    )
    assert kinds.pop("Cast") == len(ends)
    quantised = sum(node.input[1].endswith("/dequantised") for node in convs(model).values())
    expected_kinds["QuantizeLinear"] -= quantised  # weights are integers here, floats there
    assert quantised == 3
    assert kinds == expected_kinds  # the other pairs lie where those of the opset 17 file do
    for image in inputs:
        expected = run(chain_onnx, image)
        difference = np.abs(run(tmp_path / "half.onnx", image, "WeightBiasQuantization") - expected)
        assert 0 < difference.mean() < 0.1 * expected.std()


def test_layers_that_fp16_cannot_hold_give_fp32_and_stay_quantised(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(0, 1e5, (4, 3, 3, 3)).astype(np.float32)
    table = one_conv(tmp_path / "one.onnx", weights, np.zeros(4, np.float32), relu=True)
    wide = {name: {"minmax": (-3e6, 3e6)} for name in ("sums", "saliency", "end")}
    table = table.model_copy(update={"ranges": table.ranges | wide})
    image = np.random.default_rng(1).uniform(-1, 2, (1, 3, 8, 8)).astype(np.float32)
    expected = run(tmp_path / "one.onnx", image)
    write_half_qdq(tmp_path / "one.onnx", tmp_path / "half.onnx", table, "minmax")
    broken = run(tmp_path / "half.onnx", image, "WeightBiasQuantization")
    assert not np.abs(broken - expected).mean() < 0.5 * expected.std()
    kept = without_headroom(tmp_path / "one.onnx", table)
    assert kept
    write_half_qdq(tmp_path / "one.onnx", tmp_path / "half.onnx", table, "minmax", keep_float=kept)
    found = run(tmp_path / "half.onnx", image, "WeightBiasQuantization")
    assert np.abs(found - expected).mean() < 0.02 * expected.std()


def test_a_pair_has_one_type_and_no_cast_behind_it(
    chain_onnx: Path, table: CalibrationTable, inputs: list[NDArray[np.float32]], tmp_path: Path
) -> None:
    write_half_qdq(chain_onnx, tmp_path / "half.onnx", table, METHOD, keep_float=["*/second/Conv"])
    model = onnx.load(tmp_path / "half.onnx")
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {entry.name: entry.type.tensor_type.elem_type for entry in (*graph.input, *graph.value_info, *graph.output)}
    producer = {output: node for node in graph.node for output in node.output}
    given = {name: types[node.output[0]] for name, node in convs(model).items()}
    assert given["second"] == TensorProto.FLOAT
    assert given["third"] == TensorProto.FLOAT16
    for node in convs(model).values():
        made = [producer[name] for name in node.input if name in producer]
        if any(other.op_type == "DequantizeLinear" for other in made):
            assert all(other.op_type == "DequantizeLinear" for other in made), node.name
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in producer:
            assert producer[node.input[0]].op_type != "DequantizeLinear"
    expected = run(chain_onnx, inputs[0])
    assert np.abs(run(tmp_path / "half.onnx", inputs[0], "WeightBiasQuantization") - expected).mean() < 0.1 * expected.std()


def test_half_scales_are_those_the_integers_were_rounded_with(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32)
    weights *= np.array([1, 1e-4, 1e-9, 0], np.float32)[:, None, None, None]
    table = one_conv(tmp_path / "one.onnx", weights, np.zeros(4, np.float32), relu=True)
    write_half_qdq(tmp_path / "one.onnx", tmp_path / "half.onnx", table, "minmax")
    model = onnx.load(tmp_path / "half.onnx")
    values = constants(model)
    dequantise = next(node for node in model.graph.node if node.output[0] == "conv/weight/dequantised")
    integers, scales = (values[name] for name in dequantise.input[:2])
    assert scales.dtype == np.float16
    assert (scales > 0).all()
    error = np.abs(integers * scales.astype(np.float64)[:, None, None, None] - weights).max((1, 2, 3))
    assert (error <= 0.5001 * scales).all()


@pytest.mark.slow
def test_the_shipped_networks_files_for_tensorrt_find_what_fp32_finds(tmp_path: Path) -> None:
    recipe, onnx_file = recipe_for("u2netp", "int8"), zoo.shipped("u2netp").onnx
    table = read_table(assets.tables() / "u2netp-320.json")
    write_qdq(onnx_file, tmp_path / "single.onnx", table, recipe.quantisation.method, scheme="tensorrt")
    write_half_qdq(onnx_file, tmp_path / "half.onnx", table, recipe.quantisation.method)
    image = preprocess(photograph("cat"), recipe)
    expected = run(onnx_file, image)
    for name in ("single.onnx", "half.onnx"):
        difference = np.abs(run(tmp_path / name, image, "WeightBiasQuantization") - expected).mean()
        assert difference < recipe.gate.map_mae / 2, name
