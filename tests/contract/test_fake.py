"""The fake TensorRT behaves like the real one where it counts."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from .fake_tensorrt import make_fake
from .machine import AtOnce, InMemoryCuda, Machine, SegmentationFault
from .record import VERSIONS, load

OLDEST, NEWEST = VERSIONS[0], VERSIONS[-1]


def _model(opset: int = 17, **changes: Any) -> onnx.ModelProto:
    """x → Conv → Sigmoid → y, or Conv of quantised x and weights with ``scale=…``."""
    weights = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node(changes.get("last", "Sigmoid"), ["c"], ["y"], name="last"),
    ]
    constants = [numpy_helper.from_array(weights, "w")]
    if "zero_point" in changes:
        nodes[0].input[0] = "dx"
        nodes.insert(0, helper.make_node("DequantizeLinear", ["qx", "s", "z"], ["dx"], name="dq"))
        nodes.insert(0, helper.make_node("QuantizeLinear", ["x", "s", "z"], ["qx"], name="q"))
        constants += [numpy_helper.from_array(np.float32(changes.get("scale", 0.02)), "s")]
        constants += [numpy_helper.from_array(np.asarray(changes["zero_point"]), "z")]
    batch = changes.get("batch", 1)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4, 8, 8])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


class _Kit:
    """A builder with a network parsed from a model, and what the logger was told."""

    def __init__(self, trt: ModuleType, model: onnx.ModelProto, flags: int | None = None) -> None:
        self.trt, self.said = trt, (said := [])

        class Log(trt.ILogger):
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                said.append(f"{severity.name}: {msg}")

        self.logger = Log()
        self.builder = trt.Builder(self.logger)
        needed = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH) if trt.__version__.startswith("8") else 0
        self.network = self.builder.create_network(needed if flags is None else flags)
        self.parser = trt.OnnxParser(self.network, self.logger)
        self.is_parsed = self.parser.parse(model.SerializeToString())
        self.config = self.builder.create_builder_config()
        self.config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED

    def build(self) -> Any:
        return self.builder.build_serialized_network(self.network, self.config)

    def inspect(self, plan: Any) -> dict[str, Any]:
        engine = self.trt.Runtime(self.logger).deserialize_cuda_engine(plan)
        return json.loads(engine.create_engine_inspector().get_engine_information(self.trt.LayerInformationFormat.JSON))


@pytest.fixture
def machine() -> Machine:
    return Machine(memory=AtOnce())


def test_built_engine_computes_what_onnx_runtime_does(tensorrt: ModuleType) -> None:
    import onnxruntime

    kit = _Kit(tensorrt, _model())
    engine = tensorrt.Runtime(kit.logger).deserialize_cuda_engine(kit.build())
    names = [engine.get_tensor_name(k) for k in range(engine.num_io_tensors)]
    assert names == ["x", "y"]
    assert tuple(engine.get_tensor_shape("y")) == (1, 4, 8, 8)
    assert engine.get_tensor_mode("x") == tensorrt.TensorIOMode.INPUT
    x, y = np.random.default_rng(1).random((1, 3, 8, 8), np.float32), np.zeros((1, 4, 8, 8), np.float32)
    context = engine.create_execution_context()
    assert not context.execute_async_v3(0), "without addresses nothing may run"
    assert context.set_tensor_address("x", x.ctypes.data)
    assert context.set_tensor_address("y", y.ctypes.data)
    assert context.execute_async_v3(stream_handle=7)
    session = onnxruntime.InferenceSession(_model().SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(y, session.run(None, {"x": x})[0])


def test_inspector_writes_the_json_of_its_version(tensorrt: ModuleType, tensorrt_version: str) -> None:
    kit = _Kit(tensorrt, _model())
    told = kit.inspect(kit.build())
    if tensorrt_version == NEWEST:
        assert [(t["Name"], t["IOMode"], t["Dimensions"]) for t in told["I/O Tensors"]] == [
            ("x", "Input", [1, 3, 8, 8]),
            ("y", "Output", [1, 4, 8, 8]),
        ]
        assert "Bindings" not in told
    else:
        assert told["Bindings"] == ["x", "y"]
    assert told["Layers"][0]["Outputs"][0]["Format/Datatype"] == "Row major linear FP32"


@pytest.mark.parametrize("tensorrt_version", VERSIONS[:-1])
def test_a_flag_lowers_the_precision_of_a_weakly_typed_network(tensorrt: ModuleType, machine: Machine) -> None:
    machine.keeps_fp32 = frozenset({"last"})
    kit = _Kit(tensorrt, _model())
    kit.config.set_flag(tensorrt.BuilderFlag.FP16)
    layers = {layer["Name"]: layer for layer in kit.inspect(kit.build())["Layers"]}
    assert "FP16" in layers["conv"]["Inputs"][0]["Format/Datatype"]
    assert layers["last"]["Inputs"][0]["Format/Datatype"] in ("Row major linear FP32", "Float")


def test_tensorrt_11_has_no_precision_flags_nor_calibrators() -> None:
    trt = make_fake(load(NEWEST))
    for name in ("FP16", "INT8", "BF16", "OBEY_PRECISION_CONSTRAINTS"):
        with pytest.raises(AttributeError, match=name):
            getattr(trt.BuilderFlag, name)
    with pytest.raises(AttributeError, match="IInt8EntropyCalibrator2"):
        _ = trt.IInt8EntropyCalibrator2
    with pytest.raises(AttributeError, match="int8_calibrator"):
        _Kit(trt, _model()).config.int8_calibrator = None


def test_quantised_network_needs_int8_where_typing_is_weak(tensorrt: ModuleType, tensorrt_version: str) -> None:
    kit = _Kit(tensorrt, _model(zero_point=np.int8(0)))
    if tensorrt_version != NEWEST:
        assert kit.build() is None
        assert "INT8 is not set" in kit.said[-1]
        kit.config.set_flag(tensorrt.BuilderFlag.INT8)
    conv = next(layer for layer in kit.inspect(kit.build())["Layers"] if layer["Name"] == "conv")
    assert conv["Weights"]["Type"] == "Int8"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"zero_point": np.int8(3)}, "zero point"),
        ({"zero_point": np.uint8(0)}, "only INT8"),
        ({"zero_point": np.int8(0), "scale": 0.0}, "positive"),
        ({"opset": 26}, "opset"),
    ],
)
def test_parser_refuses_and_names_the_node(changes: dict[str, Any], reason: str, tensorrt: ModuleType) -> None:
    kit = _Kit(tensorrt, _model(**changes))
    assert not kit.is_parsed
    error = kit.parser.get_error(0)
    assert reason in error.desc()
    assert hasattr(error, "node_name") == (not tensorrt.__version__.startswith("8"))
    if "zero_point" in changes and hasattr(error, "node_name"):
        assert error.node_operator() in ("QuantizeLinear", "DequantizeLinear")


@pytest.mark.parametrize("tensorrt_version", [OLDEST])
def test_parser_of_the_oldest_version_knows_what_is_listed(tensorrt: ModuleType) -> None:
    kit = _Kit(tensorrt, _model(last="Hardmax"))
    assert not kit.is_parsed
    assert (kit.parser.get_error(0).node(), kit.parser.get_error(0).code()) == (1, tensorrt.ErrorCode.UNSUPPORTED_NODE)


def test_network_without_explicit_batch_is_refused_before_10(tensorrt: ModuleType, tensorrt_version: str) -> None:
    assert _Kit(tensorrt, _model(), flags=0).is_parsed != tensorrt_version.startswith("8")


def test_free_dimensions_need_a_profile_and_stay_within_it(tensorrt: ModuleType) -> None:
    kit = _Kit(tensorrt, _model(batch="n"))
    assert kit.build() is None
    profile = kit.builder.create_optimization_profile()
    with pytest.raises(ValueError, match="go together"):
        profile.set_shape("x", (2, 3, 8, 8), (1, 3, 8, 8), (4, 3, 8, 8))
    profile.set_shape("x", (1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))
    assert kit.config.add_optimization_profile(profile) == 0
    engine = tensorrt.Runtime(kit.logger).deserialize_cuda_engine(kit.build())
    context = engine.create_execution_context()
    assert context.infer_shapes() == ["x"]
    assert not context.set_input_shape("x", (8, 3, 8, 8))
    assert context.set_input_shape("x", (4, 3, 8, 8))
    assert tuple(context.get_tensor_shape("y")) == (4, 4, 8, 8)


def test_a_plan_of_another_version_or_gpu_or_cut_short_is_refused(tensorrt: ModuleType, tensorrt_version: str) -> None:
    plan = bytes(_Kit(tensorrt, _model()).build())
    other = VERSIONS[0] if tensorrt_version != VERSIONS[0] else NEWEST
    for version, machine, content in [
        (other, Machine(), plan),
        (tensorrt_version, Machine(gpu="another", compute_capability=(9, 0)), plan),
        (tensorrt_version, Machine(), plan[:-9]),
        (tensorrt_version, Machine(), b"nonsense"),
    ]:
        trt = make_fake(load(version), machine)
        assert trt.Runtime(trt.Logger(trt.Logger.INTERNAL_ERROR)).deserialize_cuda_engine(content) is None


@pytest.mark.parametrize("tensorrt_version", VERSIONS[:-1])
def test_calibrator_is_asked_as_the_real_one_is(
    tensorrt: ModuleType, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = np.zeros((1, 3, 8, 8), np.float32)

    class Calibrator(tensorrt.IInt8EntropyCalibrator2):
        def __init__(self, batches: int, faulty: bool) -> None:
            tensorrt.IInt8EntropyCalibrator2.__init__(self)
            self.left, self.faulty, self.cache = batches, faulty, b""

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> list[int] | None:
            assert names == ["x"]
            if self.faulty:
                raise OSError("no such image")
            self.left -= 1
            return [batch.ctypes.data] if self.left >= 0 else None

        def read_calibration_cache(self) -> bytes:
            return self.cache

        def write_calibration_cache(self, cache: memoryview) -> None:
            self.cache, self.lent = bytes(cache), cache

    kit = _Kit(tensorrt, _model())
    kit.config.set_flag(tensorrt.BuilderFlag.INT8)
    kit.config.int8_calibrator = calibrator = Calibrator(2, faulty=False)
    assert kit.build() is not None
    names = [name for name, *_ in machine.calls if "phase" not in name and "step" not in name]
    assert names == [
        "get_algorithm",
        "read_calibration_cache",
        "get_batch_size",
        *["get_batch"] * 3,
        "write_calibration_cache",
    ]
    number = {"8.5.3.1": 8503, "8.6.1": 8601, "10.3.0": 100300, "10.16.1.11": 101601}[tensorrt.__version__]
    assert calibrator.cache.startswith(f"TRT-{number}-EntropyCalibration2\nx: ".encode())
    with pytest.raises(ValueError, match="released"):
        bytes(calibrator.lent)  # it is the builder's memory, gone after the call
    machine.calls.clear()
    kit.config.int8_calibrator = again = Calibrator(0, faulty=True)
    again.cache = calibrator.cache
    conv = next(layer for layer in kit.inspect(kit.build())["Layers"] if layer["Name"] == "conv")
    assert conv["Weights"]["Type"] == "Int8"
    assert ("get_batch",) not in machine.calls
    again.cache = calibrator.cache.splitlines()[0] + b"\nx: bf800000\n"
    assert kit.build() is None
    assert "a scale is not positive" in kit.said[-1]
    kit.config.int8_calibrator = Calibrator(2, faulty=True)
    assert kit.build() is None
    assert "Exception caught in get_batch(): OSError: no such image" in capsys.readouterr().err


@pytest.mark.parametrize("tensorrt_version", VERSIONS[2:])
@pytest.mark.parametrize("stop", ["never", "refused", "raised"])
def test_progress_comes_from_another_thread_and_can_cancel(tensorrt: ModuleType, stop: str) -> None:
    class Progress(tensorrt.IProgressMonitor):
        def __init__(self) -> None:
            tensorrt.IProgressMonitor.__init__(self)
            self.phases: list[str] = []
            self.threads: set[threading.Thread] = set()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.phases.append(f"+{phase_name}")

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.threads.add(threading.current_thread())
            if stop == "raised":
                raise KeyError(phase_name)
            return stop == "never"

        def phase_finish(self, phase_name: str) -> None:
            self.phases.append(f"-{phase_name}")

    kit = _Kit(tensorrt, _model())
    kit.config.progress_monitor = progress = Progress()
    assert (kit.build() is None) == (stop != "never")
    assert progress.phases == ["+Building engine", "+Timing tactics", "-Timing tactics", "-Building engine"]
    assert threading.main_thread() not in progress.threads


def test_timing_cache_goes_with_its_version_and_gpu(tensorrt: ModuleType) -> None:
    kit = _Kit(tensorrt, _model())
    cache = kit.config.create_timing_cache(b"")
    assert kit.config.set_timing_cache(cache, ignore_mismatch=False)
    kit.build()
    content = bytes(cache.serialize())
    assert b"conv" in content
    again = kit.config.create_timing_cache(content)
    empty = kit.config.create_timing_cache(b"")
    assert empty.combine(again, ignore_mismatch=False)
    assert bytes(empty.serialize()) == content
    elsewhere = make_fake(load(tensorrt.__version__), Machine(gpu="another", compute_capability=(9, 0)))
    config = _Kit(elsewhere, _model()).config
    assert not config.set_timing_cache(config.create_timing_cache(content), ignore_mismatch=False)
    assert config.set_timing_cache(config.create_timing_cache(content), ignore_mismatch=True)


def test_without_a_device_a_builder_fails_and_the_runtime_of_11_is_a_trap(tensorrt: ModuleType, machine: Machine) -> None:
    machine.has_device = False
    quiet = tensorrt.Logger(tensorrt.Logger.INTERNAL_ERROR)
    with pytest.raises(TypeError, match="nullptr"):
        tensorrt.Builder(quiet)
    if tensorrt.__version__ != NEWEST:
        with pytest.raises(TypeError, match="nullptr"):
            tensorrt.Runtime(quiet)
    else:
        runtime = tensorrt.Runtime(quiet)
        with pytest.raises(SegmentationFault):
            runtime.deserialize_cuda_engine(b"")
        with pytest.raises(SegmentationFault):
            _ = runtime.max_threads
    assert machine.touched == ["Logger", "Builder", "Runtime"]


def test_objects_are_as_strict_as_those_of_pybind11(tensorrt: ModuleType) -> None:
    kit = _Kit(tensorrt, _model())
    plan = kit.build()
    with pytest.raises(AttributeError, match="max_workspce_size"):
        kit.config.max_workspce_size = 1
    with pytest.raises(TypeError, match="incompatible function arguments"):
        kit.config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, "1 GiB")
    with pytest.raises(TypeError, match="incompatible function arguments"):
        kit.builder.build_serialized_network(kit.network, None)
    with pytest.raises(TypeError, match="No constructor"):
        tensorrt.IHostMemory()
    with pytest.raises(TypeError):
        1 << tensorrt.BuilderFlag.TF32
    with pytest.raises(TypeError):
        len(plan)
    with pytest.raises(AttributeError):
        plan.decode()
    assert plan.nbytes == len(bytes(plan)) == len(memoryview(plan))

    class Forgetful(tensorrt.ILogger):
        def __init__(self) -> None:
            pass

    with pytest.raises(TypeError, match="must be called when overriding"):
        Forgetful()


def test_our_runtime_fails_where_the_fake_lacks_what_it_calls(
    tensorrt: ModuleType, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgesod.runtime.tensorrt_session import TensorRtSession

    monkeypatch.setenv("EDGESOD_CUDA", "memory")
    machine.memory = InMemoryCuda()
    (tmp_path / "engine.plan").write_bytes(_Kit(tensorrt, _model()).build())
    x = np.random.default_rng(1).random((1, 3, 8, 8), np.float32)
    with TensorRtSession(tmp_path / "engine.plan") as session:
        assert session.run({"x": x})["y"].shape == (1, 4, 8, 8)
    del tensorrt.ICudaEngine.get_tensor_mode
    with pytest.raises(AttributeError, match="get_tensor_mode"):
        TensorRtSession(tmp_path / "engine.plan")
