"""One build: checks, calibration, tactics, and the plan."""

from __future__ import annotations

import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..machine import view
from .graph import DLA_OPERATORS, MATRIX_OPERATORS, PRECISIONS, Graph, numpy_type
from .plan import Layer, Plan


class Refused(Exception):
    """The build ends here, with an error in the log and None for a plan."""


class Build:
    """One call of build_serialized_network."""

    def __init__(self, fake: Any, logger: Any, network: Any, config: Any) -> None:
        self._fake, self._trt, self._machine = fake, fake.trt, fake.machine
        self._logger, self._network, self._config = logger, network, config
        typed = getattr(self._trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        self._is_strong = fake.record.number >= (11, 0) or (typed is not None and bool(network._flags >> int(typed) & 1))

    def run(self) -> Plan:
        graph = self._network._graph
        if graph is None or not self._network.num_outputs:
            raise Refused("the network has no outputs")
        self._check_flags(graph)
        profiles = self._profiles(graph)
        limit = self._config.get_memory_pool_limit(self._trt.MemoryPoolType.WORKSPACE)
        if min(limit, self._machine.device_bytes) < self._machine.workspace_needed:
            raise Refused(f"out of memory: some tactics need {self._machine.workspace_needed} bytes, the workspace has {limit}")
        layers = self._place(self._layers(graph, self._calibrate(graph)))
        self._search(layers)
        return Plan(
            version=self._fake.record.version,
            gpu=self._machine.gpu,
            compute_capability=self._machine.compute_capability,
            is_version_compatible=self._has("VERSION_COMPATIBLE"),
            compatibility=self._setting("hardware_compatibility_level", "NONE"),
            verbosity=self._config.profiling_verbosity.value,
            name=self._network.name,
            outputs=self._network._outputs,
            profiles=profiles,
            layers=layers,
            onnx=graph.model.SerializeToString(),
        )

    def _has(self, flag: str) -> bool:
        member = getattr(self._trt.BuilderFlag, flag, None)
        return member is not None and self._config.get_flag(member)

    def _setting(self, name: str, otherwise: str) -> str:
        return getattr(self._config, name).name if hasattr(type(self._config), name) else otherwise

    def _check_flags(self, graph: Graph) -> None:
        lower = [flag for flag in ("FP16", "BF16", "INT8", "FP8") if self._has(flag)]
        if self._is_strong:
            if lower:
                raise Refused(f"{', '.join(lower)}: precision flags cannot be set for a strongly typed network")
            return
        precisions = {graph.precision_of(node) for node in graph.nodes}
        for precision, flag in (("FP16", "FP16"), ("INT8", "INT8")):
            if precision in precisions and not self._has(flag):
                raise Refused(f"{precision} is in the network, but BuilderFlag.{flag} is not set")
        if self._has("INT8") and not graph.is_quantised and self._config.int8_calibrator is None:
            self._warn("Calibrator is not being used: users must provide dynamic ranges for all tensors")

    def _warn(self, text: str) -> None:
        self._fake.log(self._logger, "WARNING", text)

    def _profiles(self, graph: Graph) -> list[dict[str, Any]]:
        dynamic = [name for name, (_, shape) in graph.inputs.items() if -1 in shape]
        if dynamic and not self._config._profiles:
            raise Refused(f"{dynamic} have free dimensions, but no optimization profile is defined")
        profiles = [profile._shapes for profile in self._config._profiles] or [{}]
        for shapes in profiles:
            for name in dynamic:
                if name not in shapes:
                    raise Refused(f"the profile has no shape for {name}")
            for name, triple in shapes.items():
                if name not in graph.inputs:
                    raise Refused(f"the profile has a shape for {name}, which is no input")
                for given in triple:
                    fixed = graph.inputs[name][1]
                    if len(given) != len(fixed) or any(b not in (-1, a) for a, b in zip(given, fixed, strict=True)):
                        raise Refused(f"the profile's shape {given} of {name} does not fit {fixed}")
        return profiles

    def _calibrate(self, graph: Graph) -> set[str]:
        """Ask the calibrator as the real builder does; return the tensors that have a scale for implicit INT8."""
        if self._is_strong or not self._has("INT8") or graph.is_quantised:
            if self._fake.record.number < (11, 0) and self._config.int8_calibrator is not None:
                self._warn("the calibrator is ignored: the network has Q/DQ layers, or INT8 is not set")
            return set()
        calibrator, tensors = self._config.int8_calibrator, [*graph.inputs, *graph.producers]
        if calibrator is None:
            return {name for name in tensors if self._network._tensor(name).dynamic_range is not None}
        algorithm = self._ask(calibrator, "get_algorithm")
        if algorithm is None:
            raise Refused("calibration failed: the calibrator has no algorithm")
        algorithm = {"ENTROPY_CALIBRATION_2": "EntropyCalibration2", "MINMAX_CALIBRATION": "MinMaxCalibration"}[algorithm.name]
        major, minor, patch = map(int, self._fake.record.version.split(".")[:3])
        head = f"TRT-{major * (10_000 if major >= 10 else 1_000) + minor * 100 + patch}-{algorithm}"
        cache = self._ask(calibrator, "read_calibration_cache")
        if cache is not None and bytes(cache):
            found, scales = _read_table(bytes(cache))
            if found == head:
                for name in sorted(set(tensors) - scales):
                    self._warn(f"Missing scale and zero-point for tensor {name}, expect fall back to non-int8 implementation")
                return scales
            self._warn(f"the calibration table begins with {found}, not with {head}: calibrating anew")
        self._feed(calibrator, graph)
        lent = memoryview("".join([f"{head}\n", *(f"{name}: 3c010a14\n" for name in tensors)]).encode())
        self._ask(calibrator, "write_calibration_cache", lent)
        lent.release()
        return set(tensors)

    def _feed(self, calibrator: Any, graph: Graph) -> None:
        names = list(graph.inputs)
        size = self._ask(calibrator, "get_batch_size")
        if size is None or size < 1:
            raise Refused(f"calibration failed: the batch size is {size}")
        batches = 0
        while pointers := self._ask(calibrator, "get_batch", names):
            if len(pointers) != len(names):
                raise Refused(f"calibration failed: {len(pointers)} addresses for {len(names)} inputs")
            for name, pointer in zip(names, pointers, strict=True):
                self._read(graph, name, int(pointer))
            batches += 1
        if not batches:
            raise Refused("calibration failed: no scaling factors detected")

    def _ask(self, calibrator: Any, name: str, *args: Any) -> Any:
        self._machine.calls.append((name,))
        return self._fake.call_back(name, lambda: getattr(calibrator, name)(*args))

    def _read(self, graph: Graph, name: str, pointer: int) -> None:
        """Read a batch as calibration does; one that is not finite makes no range."""
        kind, shape = graph.inputs[name]
        profile = self._config.get_calibration_profile() or next(iter(self._config._profiles), None)
        opt = profile._shapes.get(name, (shape, shape, shape))[1] if profile is not None else shape
        count = int(np.prod(opt))
        batch = np.frombuffer(view(pointer, count * numpy_type(kind).itemsize), numpy_type(kind))
        if not np.isfinite(batch).all():
            raise Refused(f"calibration failed: {name} is not finite")

    def _layers(self, graph: Graph, scaled: set[str]) -> list[Layer]:
        layers = []
        for index, node in enumerate(graph.nodes):
            if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Constant", "Identity"):
                continue
            precision = graph.precision_of(node)
            if precision == "FP32" and not self._is_strong and node.name not in self._machine.keeps_fp32:
                if node.op_type in MATRIX_OPERATORS and node.input[0] in scaled:
                    precision = "INT8"
                elif self._has("FP16"):
                    precision = "FP16"
                constraint = vars(self._network._layers[index]).get("_precision")
                if constraint is not None and (
                    self._has("OBEY_PRECISION_CONSTRAINTS") or self._has("PREFER_PRECISION_CONSTRAINTS")
                ):
                    precision = {"FLOAT": "FP32", "HALF": "FP16", "INT8": "INT8"}[constraint.name]
            gives = self._gives(graph, node, precision)
            name = node.name or f"node_{index}"
            layers.append(Layer(name, node.op_type, precision, list(node.input), list(node.output), gives))
        return layers

    def _gives(self, graph: Graph, node: Any, precision: str) -> str:
        """An INT8 layer gives INT8 where everything behind it quantises, as the quantisation is then part of it."""
        if precision != "INT8":
            return precision
        readers = [reader for reader in graph.nodes if node.output[0] in reader.input]
        if readers and all(reader.op_type == "QuantizeLinear" for reader in readers):
            return "INT8"
        return "FP16" if self._has("FP16") else PRECISIONS[graph.types[node.output[0]]]

    def _place(self, layers: list[Layer]) -> list[Layer]:
        """Merge what runs on the DLA into one layer for each stretch, as a DLA's loadables are shown."""
        config = self._config
        by_name = {layer.name: layer for layer in self._network._layers}
        wanted = {
            layer.name
            for layer in layers
            if layer.name in by_name and config.get_device_type(by_name[layer.name]) == self._trt.DeviceType.DLA
        }
        if not wanted:
            return layers
        if not 0 <= config.DLA_core < self._machine.dla_cores:
            raise Refused(f"DLA core {config.DLA_core} is not there: this device has {self._machine.dla_cores}")
        placed: list[Layer] = []
        for layer in layers:
            fits = layer.operator in DLA_OPERATORS and layer.precision in ("FP16", "INT8")
            if layer.name in wanted and not fits and not self._has("GPU_FALLBACK"):
                raise Refused(f"{layer.name} cannot run on DLA in {layer.precision}, and GPU fallback is not enabled")
            if layer.name not in wanted or not fits:
                placed.append(layer)
            elif placed and placed[-1].operator == "DLA":
                placed[-1] = placed[-1].joined(layer)
            else:
                placed.append(Layer(f"{{ForeignNode[{layer.name}]}}", "DLA", layer.precision, layer.inputs, layer.outputs))
        return placed

    def _search(self, layers: list[Layer]) -> None:
        """Time tactics, layer by layer, with the progress monitor told from another thread, as the real builder's are."""
        monitor = self._config.progress_monitor if hasattr(type(self._config), "progress_monitor") else None
        cache = self._config._cache
        with ThreadPoolExecutor(1) as others:

            def tell(name: str, *args: Any) -> Any:
                self._machine.calls.append((name, *map(str, args)))
                call: Callable[[], Any] = lambda: getattr(monitor, name)(*args)  # noqa: E731
                return others.submit(self._fake.call_back, name, call).result()

            phases = [("Building engine", None, 1), ("Timing tactics", "Building engine", len(layers))]
            for phase in phases if monitor is not None else ():
                tell("phase_start", *phase)
            is_cancelled = False
            for step, layer in enumerate(layers):
                time.sleep(self._machine.build_step_s)
                if layer.name in self._machine.refused_layers:
                    raise Refused(f"Could not find any implementation for node {layer.name}.")
                if cache is not None:
                    cache._entries["tactics"][f"{layer.operator} {layer.precision} {layer.name}"] = 1
                # an exception in step_complete cancels too
                if monitor is not None and not tell("step_complete", "Timing tactics", step):
                    is_cancelled = True
                    break
            for phase in reversed(phases) if monitor is not None else ():
                tell("phase_finish", phase[0])
        if is_cancelled:
            raise Refused("the build was cancelled")


def _read_table(content: bytes) -> tuple[str, set[str]]:
    """Return the first line of a calibration table and the tensors it has scales for: ``name: hexadecimal float32`` a line."""
    try:
        head, *lines = content.decode().splitlines()
        scales = {}
        for line in lines:
            name, _, digits = line.rpartition(": ")
            (scales[name],) = struct.unpack(">f", bytes.fromhex(digits))
        if not all(np.isfinite(scale) and scale > 0 for scale in scales.values()):
            raise ValueError("a scale is not positive")
    except (ValueError, struct.error) as error:
        raise Refused(f"calibration failed: the calibration table cannot be read: {error}") from error
    return head, set(scales)


@contextmanager
def deferred_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back until the build is over: C++ does not return to Python for it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[Any] = []
    before = signal.signal(signal.SIGINT, lambda *args: pressed.append(args))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed and callable(before):
            before(*pressed[0])
