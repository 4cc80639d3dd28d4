"""Execution contexts: ONNX Runtime computes the plan's ONNX between device addresses, in the stream of the CUDA provider."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgesod.errors import DeviceError

from ..machine import view
from .graph import inference_of, numpy_type
from .property import Default


class IExecutionContext:
    debug_sync = False
    device_memory = 0
    enqueue_emits_profile = True
    name = ""
    nvtx_verbosity = Default("trt.ProfilingVerbosity.LAYER_NAMES_ONLY")
    persistent_cache_limit = 0
    profiler = None
    active_optimization_profile = 0
    unfused_tensors_debug_state = False

    @property
    def engine(self) -> Any:
        return self._engine

    @property
    def all_binding_shapes_specified(self) -> bool:
        return not self._unset()

    all_shape_inputs_specified = all_binding_shapes_specified

    def set_input_shape(self, name: str, shape: Any) -> bool:
        given, fixed = tuple(shape), self._engine._graph.inputs.get(name, (0, None))[1]
        if fixed is None or len(given) != len(fixed) or any(b not in (-1, a) for a, b in zip(given, fixed, strict=True)):
            return self._fail(f"{name} cannot have the shape {given}")
        if self.active_optimization_profile < 0:
            return self._fail("no optimization profile has been set")
        low, _, high = self._engine._plan.profiles[self.active_optimization_profile].get(name, (given, given, given))
        if not all(a <= b <= c for a, b, c in zip(low, given, high, strict=True)):
            return self._fail(f"the shape {given} of {name} is outside the profile's {low} to {high}")
        self._shapes[name] = given
        return True

    def get_tensor_shape(self, name: str) -> Any:
        if name in self._engine._graph.inputs:
            return self._fake.trt.Dims(self._shape(name))
        fixed = self._engine._tensor(name)[1]
        if -1 in fixed and not self._unset():  # the batch is the only free dimension that the fake works out
            batch = self._shape(next(iter(self._engine._graph.inputs)))[0]
            fixed = tuple(batch if size == -1 else size for size in fixed)
        return self._fake.trt.Dims(fixed)

    def get_tensor_strides(self, name: str) -> Any:
        shape = tuple(self.get_tensor_shape(name))
        return self._fake.trt.Dims([int(np.prod(shape[k + 1 :])) for k in range(len(shape))])

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self._engine._names():
            return self._fail(f"given invalid tensor name: {name}")
        self._addresses[name] = int(memory)
        return True

    def get_tensor_address(self, name: str) -> int:
        return self._addresses.get(name, 0)

    def get_max_output_size(self, name: str) -> int:
        triple = [self._engine.get_tensor_profile_shape(i, 0)[2][0] for i in self._engine._graph.inputs]
        shape = [triple[0] if size == -1 else size for size in self._engine._tensor(name)[1]]
        return int(np.prod(shape)) * numpy_type(self._engine._tensor(name)[0]).itemsize

    def infer_shapes(self) -> list[str]:
        return self._unset()

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if not 0 <= profile_index < self._engine.num_optimization_profiles:
            return self._fail(f"there is no optimization profile {profile_index}")
        if self._fake.record.number < (10, 0) and any(
            other.active_optimization_profile == profile_index for other in self._engine._contexts if other is not self
        ):
            return self._fail(f"another context has optimization profile {profile_index}")
        self._active_optimization_profile = int(profile_index)
        self._shapes.clear()
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        missing = [name for name in self._engine._names() if not self._addresses.get(name)]
        if missing or self._unset():
            return self._fail(f"no address for {missing}, no shape for {self._unset()}")
        work = self._work(dict(self._addresses), {name: tuple(self.get_tensor_shape(name)) for name in self._engine._names()})
        reads = [self._addresses[name] for name in self._engine._graph.inputs]
        writes = [self._addresses[name] for name in self._engine._plan.outputs]
        if not self._lock.acquire(blocking=False):
            raise AssertionError("two threads are in one execution context")
        try:
            self._fake.machine.memory.enqueue(int(stream_handle), work, reads, writes)
        except DeviceError as error:  # C++ knows no error of ours: it logs and returns false
            return self._fail(f"Cuda Runtime: {error}")
        finally:
            self._lock.release()
        self._time()
        return True

    def execute_v2(self, bindings: list[int]) -> bool:
        names = self._engine._names()
        if len(bindings) != len(names) or not all(bindings) or self._unset():
            return self._fail(f"{len(bindings)} addresses for {names}, no shape for {self._unset()}")
        shapes = {name: tuple(self.get_tensor_shape(name)) for name in names}
        self._work(dict(zip(names, map(int, bindings), strict=True)), shapes)()
        self._time()
        return True

    def get_runtime_config(self) -> Any:
        return self._config

    def report_to_profiler(self) -> bool:
        for name, milliseconds in self._times:
            self._fake.call_back("report_layer_time", lambda n=name, t=milliseconds: self.profiler.report_layer_time(n, t))
        return self.profiler is not None

    def set_input_consumed_event(self, event: int) -> bool:
        self._event = int(event)
        return True

    def get_input_consumed_event(self) -> int:
        return vars(self).get("_event", 0)

    def set_aux_streams(self, aux_streams: list[int]) -> None:
        self._aux_streams = list(aux_streams)

    def set_device_memory(self, memory: int, size: int) -> None:
        self._device_memory = int(memory)

    def update_device_memory_size_for_shapes(self) -> int:
        return 1 << 20

    def _fail(self, reason: str) -> bool:
        self._fake.log(self._engine._runtime._logger, "ERROR", f"IExecutionContext: {reason}")
        return False

    def _shape(self, name: str) -> tuple[int, ...]:
        return self._shapes.get(name, self._engine._graph.inputs[name][1])

    def _unset(self) -> list[str]:
        return [name for name in self._engine._graph.inputs if -1 in self._shape(name)]

    def _time(self) -> None:
        """Report layer times at once, or keep them until they are asked for."""
        if self.profiler is not None:
            self._times = [(layer.name, 0.01 * k) for k, layer in enumerate(self._engine._plan.layers, 1)]
            if self.enqueue_emits_profile:
                self.report_to_profiler()

    def _work(self, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> Any:
        engine = self._engine
        types = {name: numpy_type(engine._tensor(name)[0]) for name in addresses}

        def array(name: str) -> Any:
            nbytes = int(np.prod(shapes[name])) * types[name].itemsize
            return np.frombuffer(view(addresses[name], nbytes), types[name]).reshape(shapes[name])

        def work() -> None:
            results = inference_of(engine._plan.onnx).run(
                engine._plan.outputs, {name: array(name) for name in engine._graph.inputs}
            )
            for name, result in zip(engine._plan.outputs, results, strict=True):
                array(name)[...] = result

        return work


class IRuntimeConfig:
    def set_execution_context_allocation_strategy(self, strategy: Any = None) -> None:
        self._strategy = strategy or self._fake.trt.ExecutionContextAllocationStrategy.STATIC

    def get_execution_context_allocation_strategy(self) -> Any:
        return self._strategy
