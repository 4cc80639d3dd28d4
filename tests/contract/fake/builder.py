"""Builder, config, profiles and timing caches."""

from __future__ import annotations

import json
from typing import Any

from .build import Build, Refused, deferred_interrupt
from .graph import DLA_OPERATORS
from .property import Default


class Builder:
    gpu_allocator = None
    max_threads = 1
    max_batch_size = 1
    max_DLA_batch_size = 4096  # noqa: N815
    num_DLA_cores = Default("machine.dla_cores")  # noqa: N815
    platform_has_fast_fp16 = Default("machine.fast_fp16")
    platform_has_fast_int8 = Default("machine.fast_int8")
    platform_has_tf32 = False

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        if not self._fake.machine.has_device:
            self._fake.log(logger, "ERROR", "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags: int = 0) -> Any:
        return self._fake.make("INetworkDefinition", flags=int(flags), graph=None, outputs=None, tensors={}, layers=[], name="")

    def create_builder_config(self) -> Any:
        config = self._fake.make("IBuilderConfig")
        config.reset()
        return config

    def create_optimization_profile(self) -> Any:
        return self._fake.make("IOptimizationProfile", shapes={})

    def is_network_supported(self, network: Any, config: Any) -> bool:
        return network._graph is not None

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        with deferred_interrupt():
            try:
                plan = Build(self._fake, self._logger, network, config).run()
            except Refused as refused:
                self._fake.log(self._logger, "ERROR", str(refused))
                return None
        return self._fake.make("IHostMemory", content=plan.pack())

    def reset(self) -> None:
        pass


class IOptimizationProfile:
    extra_memory_target = 1.0
    profile_stream = 0

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        low, best, high = tuple(min), tuple(opt), tuple(max)
        if not len(low) == len(best) == len(high) or not all(a <= b <= c for a, b, c in zip(low, best, high, strict=True)):
            raise ValueError(f"min, opt and max shapes of {input} do not go together: {low}, {best}, {high}")
        self._shapes[input] = (low, best, high)

    def get_shape(self, input: str) -> list[Any]:
        return [self._fake.trt.Dims(shape) for shape in self._shapes.get(input, ())]

    def __bool__(self) -> bool:
        return True


class IBuilderConfig:
    DLA_core = -1
    all_build_routes = ""
    build_route = ""
    remote_auto_tuning_config = ""
    avg_timing_iterations = 1
    min_timing_iterations = 1
    builder_optimization_level = 3
    default_device_type = Default("trt.DeviceType.GPU")
    engine_capability = Default("trt.EngineCapability.STANDARD")
    hardware_compatibility_level = Default("trt.HardwareCompatibilityLevel.NONE")
    profiling_verbosity = Default("trt.ProfilingVerbosity.LAYER_NAMES_ONLY")
    runtime_platform = Default("trt.RuntimePlatform.SAME_AS_BUILD")
    tiling_optimization_level = Default("trt.TilingOptimizationLevel.NONE")
    flags = 0
    int8_calibrator = None
    l2_limit_for_tiling = 0
    max_aux_streams = -1
    max_num_tactics = -1
    max_workspace_size = 0
    plugins_to_serialize: list[str] = []  # noqa: RUF012
    profile_stream = 0
    progress_monitor = None
    quantization_flags = 0

    def reset(self) -> None:
        for name in [name for name in vars(self) if not name.startswith("_is")]:
            del vars(self)[name]
        for name, value in {"profiles": [], "pools": {}, "cache": None, "devices": {}, "previews": set(), "tactics": 0}.items():
            setattr(self, f"_{name}", value)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._profiles)

    def set_flag(self, flag: Any) -> None:
        self.flags = self.flags | 1 << int(flag)

    def clear_flag(self, flag: Any) -> None:
        self.flags = self.flags & ~(1 << int(flag))

    def get_flag(self, flag: Any) -> bool:
        return bool(self.flags >> int(flag) & 1)

    def set_quantization_flag(self, flag: Any) -> None:
        self.quantization_flags = self.quantization_flags | 1 << int(flag)

    def clear_quantization_flag(self, flag: Any) -> None:
        self.quantization_flags = self.quantization_flags & ~(1 << int(flag))

    def get_quantization_flag(self, flag: Any) -> bool:
        return bool(self.quantization_flags >> int(flag) & 1)

    def set_preview_feature(self, feature: Any, enable: bool) -> None:
        (self._previews.add if enable else self._previews.discard)(feature)

    def get_preview_feature(self, feature: Any) -> bool:
        return feature in self._previews

    def set_tactic_sources(self, tactic_sources: int) -> bool:
        self._tactics = int(tactic_sources)
        return True

    def get_tactic_sources(self) -> int:
        return self._tactics

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._pools[pool.name] = int(pool_size)

    def get_memory_pool_limit(self, pool: Any) -> int:
        return self._pools.get(pool.name, self._fake.machine.device_bytes if pool.name == "WORKSPACE" else 0)

    def add_optimization_profile(self, profile: Any) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def set_calibration_profile(self, profile: Any) -> bool:
        self._calibration_profile = profile
        return True

    def get_calibration_profile(self) -> Any:
        return vars(self).get("_calibration_profile")

    def create_timing_cache(self, serialized_timing_cache: Any) -> Any:
        """An empty buffer makes an empty one; what cannot be read makes none (assumed: the real one logs an error too)."""
        content = bytes(serialized_timing_cache)
        try:
            entries = json.loads(content) if content else {"for": _cache_header(self._fake), "tactics": {}}
        except ValueError:
            return None
        return self._fake.make("ITimingCache", entries=entries)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if cache._entries["for"] != _cache_header(self._fake) and not ignore_mismatch:
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._cache

    def can_run_on_DLA(self, layer: Any) -> bool:  # noqa: N802
        return layer._node.op_type in DLA_OPERATORS

    def set_device_type(self, layer: Any, device_type: Any) -> None:
        self._devices[layer.name] = device_type

    def get_device_type(self, layer: Any) -> Any:
        return self._devices.get(layer.name, self.default_device_type)

    def is_device_type_set(self, layer: Any) -> bool:
        return layer.name in self._devices

    def reset_device_type(self, layer: Any) -> None:
        self._devices.pop(layer.name, None)


class ITimingCache:
    def serialize(self) -> Any:
        return self._fake.make("IHostMemory", content=json.dumps(self._entries, sort_keys=True).encode())

    def combine(self, input_cache: Any, ignore_mismatch: bool) -> bool:
        if input_cache._entries["for"] != self._entries["for"] and not ignore_mismatch:
            return False
        self._entries["tactics"] |= input_cache._entries["tactics"]
        return True

    def reset(self) -> bool:
        self._entries["tactics"] = {}
        return True


def _cache_header(fake: Any) -> list[str]:
    return [fake.record.version, fake.machine.gpu]
