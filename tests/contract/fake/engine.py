"""Runtime and engine."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import onnx

from .graph import DATA_TYPES, Graph
from .network import data_type
from .plan import Plan
from .property import Default


class Runtime:
    DLA_core = -1
    engine_host_code_allowed = False
    gpu_allocator = None
    max_threads = 1
    num_DLA_cores = Default("machine.dla_cores")  # noqa: N815
    tempfile_control_flags = 0
    temporary_directory = ""

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        if not self._fake.machine.has_device:
            self._fake.log(logger, "ERROR", "CUDA initialization failure with error: 35")
            if self._fake.record.number < (11, 0):
                raise TypeError("pybind11::init(): factory function returned nullptr")
            self._is_dangling = True

    def deserialize_cuda_engine(self, serialized_engine: Any) -> Any:
        plan = Plan.unpack(bytes(serialized_engine))
        reason = "it is not a plan, or not a whole one" if plan is None else self._mismatch(plan)
        if reason:
            self._fake.log(self._logger, "ERROR", f"the plan cannot be deserialised: {reason}")
            return None
        return self._fake.make("ICudaEngine", plan=plan, graph=Graph(_model(plan)), runtime=self)

    def _mismatch(self, plan: Plan) -> str:
        machine, here = self._fake.machine, self._fake.record.number[0]
        there = int(plan.version.split(".")[0])
        # a version-compatible plan runs in its own and the next major version, if the code in it may be run
        if plan.version != self._fake.record.version and (not plan.is_version_compatible or here - there not in (0, 1)):
            return f"it was built by TensorRT {plan.version}, this is {self._fake.record.version}"
        if plan.is_version_compatible and not self.engine_host_code_allowed:
            return "it is version compatible, and running the code in it is not allowed"
        same = plan.compute_capability == machine.compute_capability
        newer = plan.compatibility == "AMPERE_PLUS" and machine.compute_capability >= (8, 0)
        if not (same and (plan.compatibility == "SAME_COMPUTE_CAPABILITY" or plan.gpu == machine.gpu)) and not newer:
            return f"it was built for {plan.gpu} {plan.compute_capability}, this is {machine.gpu} {machine.compute_capability}"
        return ""


class ICudaEngine:
    engine_capability = Default("trt.EngineCapability.STANDARD")
    has_implicit_batch_dimension = False
    max_batch_size = 1
    num_aux_streams = 0
    refittable = False
    streamable_weights_size = 0
    tactic_sources = 0
    weight_streaming_budget_v2 = 0
    weight_streaming_scratch_memory_size = 0
    device_memory_size = 1 << 20
    device_memory_size_v2 = 1 << 20

    @property
    def name(self) -> str:
        return self._plan.name

    @property
    def num_io_tensors(self) -> int:
        return len(self._names())

    num_bindings = num_io_tensors

    @property
    def num_layers(self) -> int:
        return len(self._plan.layers)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._plan.profiles)

    @property
    def profiling_verbosity(self) -> Any:
        return self._fake.trt.ProfilingVerbosity(self._plan.verbosity)

    @property
    def hardware_compatibility_level(self) -> Any:
        return getattr(self._fake.trt.HardwareCompatibilityLevel, self._plan.compatibility)

    def get_tensor_name(self, index: int) -> Any:
        names = self._names()
        return names[index] if 0 <= index < len(names) else None

    def get_tensor_mode(self, name: str) -> Any:
        mode = self._fake.trt.TensorIOMode
        if name in self._graph.inputs:
            return mode.INPUT
        return mode.OUTPUT if name in self._plan.outputs else mode.NONE

    def get_tensor_shape(self, name: str) -> Any:
        return self._fake.trt.Dims(self._tensor(name)[1])

    def get_tensor_dtype(self, name: str) -> Any:
        return data_type(self._fake, self._tensor(name)[0])

    def get_tensor_location(self, name: str) -> Any:
        return self._fake.trt.TensorLocation.DEVICE

    def get_tensor_format(self, name: str, profile_index: int = 0) -> Any:
        return self._fake.trt.TensorFormat.LINEAR

    def get_tensor_format_desc(self, name: str, profile_index: int = 0) -> str:
        kind = DATA_TYPES[self._tensor(name)[0]]
        return f"Row major linear {kind} format (kLINEAR)"

    def get_tensor_bytes_per_component(self, name: str, profile_index: int = 0) -> int:
        return -1  # of a format that is not vectorised

    get_tensor_components_per_element = get_tensor_vectorized_dim = get_tensor_bytes_per_component

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Any]:
        fixed = self._tensor(name)[1]
        triple = self._plan.profiles[profile_index].get(name, (fixed, fixed, fixed))
        return [self._fake.trt.Dims(shape) for shape in triple]

    def get_device_memory_size_for_profile(self, profile_index: int) -> int:
        return 1 << 20

    get_device_memory_size_for_profile_v2 = get_device_memory_size_for_profile

    def is_shape_inference_io(self, name: str) -> bool:
        return False

    def is_debug_tensor(self, name: str) -> bool:
        return False

    def create_execution_context(self, strategy: Any = None, runtime_config: Any = None) -> Any:
        state = {"engine": self, "config": runtime_config, "lock": threading.Lock()}
        contexts = vars(self).setdefault("_contexts", weakref.WeakSet())
        if any(-1 in shape for _, shape in self._graph.inputs.values()) and self._fake.record.number < (10, 0) and contexts:
            state["active_optimization_profile"] = -1  # a profile is for one context; the first one has 0 by itself
        made = self._fake.make("IExecutionContext", **state, shapes={}, addresses={}, times=[])
        contexts.add(made)
        return made

    def create_execution_context_without_device_memory(self) -> Any:
        return self.create_execution_context()

    def create_runtime_config(self) -> Any:
        strategies = self._fake.trt.ExecutionContextAllocationStrategy
        return self._fake.make("IRuntimeConfig", strategy=strategies.STATIC)

    def create_engine_inspector(self) -> Any:
        return self._fake.make("EngineInspector", engine=self)

    def serialize(self) -> Any:
        return self._fake.make("IHostMemory", content=self._plan.pack())

    def __len__(self) -> int:
        return self.num_io_tensors

    def __getitem__(self, index: int) -> str:
        return self._names()[index]

    def _names(self) -> list[str]:
        return [*self._graph.inputs, *self._plan.outputs]

    def _tensor(self, name: str) -> tuple[int, tuple[int, ...]]:
        if name in self._graph.inputs:
            return self._graph.inputs[name]
        if name in self._plan.outputs:
            return self._graph.types[name], self._graph.shapes[name]
        self._fake.log(self._runtime._logger, "ERROR", f"given invalid tensor name: {name}")
        return 1, ()


def _model(plan: Plan) -> Any:
    return onnx.load_from_string(plan.onnx)
