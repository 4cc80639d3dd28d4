"""ONNX to engine with TensorRT, in this process; :mod:`~edgesod.builder.tensorrt_process` runs it in one of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from edgesod.calibration.tensorrt_cache import Algorithm
from edgesod.errors import BackendError, BuildError, EdgesodError, OutputError
from edgesod.files import replacing, slug, write_atomically
from edgesod.manifest import TensorRtBuild
from edgesod.recipe import Recipe
from edgesod.runtime import tensorrt_version as version
from edgesod.runtime.cuda import Cuda, open_cuda
from edgesod.runtime.tensorrt_log import Messages, starting, the_logger

from .tensorrt_calibrators import Calibration, set_calibrator
from .tensorrt_policy import Int8Route, TensorRtOptions, Typing
from .tensorrt_progress import Progress, watch
from .tensorrt_readback import check_types, layer_types

if TYPE_CHECKING:
    import tensorrt as trt

_MIB = 1 << 20


class BuildRequest(BaseModel):
    """One engine to build; everything the building process is told.

    Attributes:
        recipe: What it is for.
        onnx: The ONNX of the policy's kind.
        plan: Where the engine goes, raw as TensorRT serialised it.
        options: What was asked for.
        typing, int8_route, network_flags, builder_flags: The policy's.
        algorithm: Of the calibrator, for the implicit route.
        cache: A finished calibration cache.
        images: Folders and tars of images to calibrate on where there is no cache.
        written_cache: Where the cache goes that TensorRT worked out from ``images``.
        timing_caches: Folder that timing caches are kept in.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Recipe
    onnx: Path
    plan: Path
    options: TensorRtOptions
    typing: Typing
    int8_route: Int8Route | None
    network_flags: tuple[str, ...]
    builder_flags: tuple[str, ...]
    algorithm: Algorithm = "EntropyCalibration2"
    cache: Path | None = None
    images: tuple[Path, ...] = ()
    written_cache: Path | None = None
    timing_caches: Path


class Listener(Protocol):
    """Whom a build tells how it goes."""

    def on_step(self, text: str) -> None:
        """Take a step in a sentence."""

    def on_fraction(self, fraction: float) -> None:
        """Take how much of the search is done, 0 to 1; called by any thread."""

    def on_workspace(self, workspace_mib: int, free_mib: int) -> None:
        """Take the workspace and the free memory it was chosen by."""


def build_plan(request: BuildRequest, listener: Listener, cancelled: threading.Event) -> TensorRtBuild:
    """Build an engine, check its precision and write it.

    Args:
        request: What to build.
        listener: Told how it goes.
        cancelled: Once set, TensorRT 10 and later give up at the next step.

    Raises:
        BackendError: No GPU, no TensorRT, or one of them cannot do what was asked.
        BuildError: TensorRT refuses the network, the build fails, or the engine has another precision than was asked for.
        KeyboardInterrupt: It was cancelled.
    """
    with open_cuda() as cuda:
        here = version.require_tensorrt(cuda)
        try:
            return _Build(request, listener, cancelled, cuda, here).run()
        except (EdgesodError, KeyboardInterrupt) as error:
            # its traceback would keep TensorRT's objects alive until after the context is gone
            failure = error.with_traceback(None)
            failure.__context__ = None
    raise failure


class _Build:
    """One build. TensorRT's objects live no longer than ``run``."""

    def __init__(self, request: BuildRequest, listener: Listener, cancelled: threading.Event, cuda: Cuda, here: str) -> None:
        self._request, self._listener, self._cancelled = request, listener, cancelled
        self._cuda, self._version = cuda, here
        self._gpu = cuda.device_info()
        self._messages = Messages()
        self._logger = the_logger()

    def run(self) -> TensorRtBuild:
        import tensorrt as trt

        request, options = self._request, self._request.options
        with starting(self._version, self._gpu, self._messages):
            builder = trt.Builder(self._logger)
        network, _parser = self._parse(builder)  # the parser owns the weights until the engine is built
        config = self._config(builder)
        self._set_profile(builder, network, config)
        calibration = self._set_calibrator(config) if request.int8_route == "implicit" else None
        if options.dla_core is not None:
            self._place_on_dla(builder, network, config, options.dla_core)
        watch(config, Progress(self._listener.on_fraction, self._cancelled.is_set))
        major, minor = self._gpu.compute_capability
        caches = request.timing_caches / f"{self._version}-{slug(self._gpu.name)}-sm{major}{minor}.cache"
        _timings = self._set_timing_cache(config, caches)
        plan = builder.build_serialized_network(network, config)
        if self._cancelled.is_set():
            raise KeyboardInterrupt
        if calibration is not None:
            calibration.raise_error()
        if plan is None:
            raise self._failed()
        self._keep_timing_cache(config, caches)
        if calibration is not None and calibration.written is not None and request.written_cache is not None:
            write_atomically(request.written_cache, calibration.written)
        with replacing(request.plan) as temporary:
            temporary.write_bytes(memoryview(plan))
        information = self._inspect(memoryview(plan))
        check_types(information, request.recipe.precision)
        level = None
        if version.TRT_GE_86:
            level = config.builder_optimization_level
        return TensorRtBuild(
            version=self._version,
            gpu=self._gpu,
            typing=request.typing,
            hardware_compatibility=options.hardware_compatibility,
            is_version_compatible=options.is_version_compatible,
            optimization_level=level,
            dla_core=options.dla_core,
            batch=options.batch,
            options=options.words,
            layers=layer_types(information),
        )

    def _parse(self, builder: trt.Builder) -> tuple[trt.INetworkDefinition, trt.OnnxParser]:
        import tensorrt as trt

        flags = 0
        for name in self._request.network_flags:
            flags |= 1 << int(getattr(trt.NetworkDefinitionCreationFlag, name))
        network = builder.create_network(flags)
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse_from_file(str(self._request.onnx)):
            errors = [parser.get_error(k) for k in range(parser.num_errors)]
            reasons = "; ".join(self._parser_error(error) for error in errors) or self._messages.last()
            raise BuildError(
                f"TensorRT {self._version} cannot parse {self._request.onnx.name}: {reasons}",
                hint="export the network without that operator, or use a later TensorRT",
            )
        return network, parser

    def _parser_error(self, error: trt.ParserError) -> str:
        if version.TRT_GE_100:
            name, operator = error.node_name(), error.node_operator()
        else:
            name, operator = _node(self._request.onnx, error.node())
        where = f"node {name!r} ({operator}): " if operator else ""
        return f"{where}{error.desc().strip()}"

    def _config(self, builder: trt.Builder) -> trt.IBuilderConfig:
        import tensorrt as trt

        options = self._request.options
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, self._workspace())
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else the inspector names no types
        for name in self._request.builder_flags:
            config.set_flag(getattr(trt.BuilderFlag, name))
        if options.tactic_sources is not None:
            sources = trt.TacticSource.__members__
            unknown = [name for name in options.tactic_sources if name not in sources]
            if unknown:
                raise BackendError(
                    f"TensorRT {self._version} has no tactic source {unknown[0]!r}", hint=f"one of {', '.join(sources)}"
                )
            config.set_tactic_sources(sum(1 << int(sources[name]) for name in options.tactic_sources))
        if version.TRT_GE_86:
            if options.optimization_level is not None:
                config.builder_optimization_level = options.optimization_level
            if options.is_version_compatible:
                config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
            level = options.hardware_compatibility.replace("-", "_").upper()
            if level not in trt.HardwareCompatibilityLevel.__members__:
                raise self._lacks(f"hardware compatibility {options.hardware_compatibility!r}", "--hardware-compatibility")
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.__members__[level]
        elif options.optimization_level is not None:
            raise self._lacks("optimization levels", "--opt-level")
        elif options.is_version_compatible:
            raise self._lacks("version compatibility", "--version-compatible")
        elif options.hardware_compatibility != "none":
            raise self._lacks("hardware compatibility", "--hardware-compatibility")
        return config

    def _lacks(self, what: str, option: str) -> BackendError:
        return BackendError(f"TensorRT {self._version} has no {what}", hint=f"leave out {option}")

    def _workspace(self) -> int:
        """Return the workspace limit in bytes, after a look at the memory that is free."""
        free = self._cuda.mem_info()[0]
        asked = self._request.options.workspace_mib
        limit = asked * _MIB if asked is not None else free // 2
        self._listener.on_workspace(limit // _MIB, free // _MIB)
        if limit > free:
            raise BuildError(
                f"a workspace of {asked} MiB was asked for, but the GPU has {free // _MIB} MiB free",
                hint=f"--workspace {free // 2 // _MIB}, or close other programs that use the GPU",
            )
        return limit

    def _set_profile(self, builder: trt.Builder, network: trt.INetworkDefinition, config: trt.IBuilderConfig) -> None:
        """Say which batches a network without a fixed one is for."""
        if self._request.options.batch[2] == 1:
            return
        profile, one = builder.create_optimization_profile(), builder.create_optimization_profile()
        for k in range(network.num_inputs):
            entry = network.get_input(k)
            assert entry is not None  # there are num_inputs of them
            rest = tuple(entry.shape)[1:]
            profile.set_shape(entry.name, *((number, *rest) for number in self._request.options.batch))
            one.set_shape(entry.name, *((1, *rest),) * 3)
        config.add_optimization_profile(profile)
        if self._request.int8_route == "implicit" and not version.TRT_GE_11:
            config.set_calibration_profile(one)  # what the calibrator hands over at a time

    def _set_calibrator(self, config: trt.IBuilderConfig) -> Calibration:
        cache = self._request.cache.read_bytes() if self._request.cache is not None else None
        calibration = Calibration(self._cuda, cache, self._images())
        set_calibrator(config, calibration, self._request.algorithm)
        return calibration

    def _images(self) -> Iterator[NDArray[np.float32]]:
        from edgesod.calibration.images import CalibrationImages

        if self._request.images:
            for _, tensor in CalibrationImages(self._request.images, self._request.recipe):
                yield tensor

    def _place_on_dla(
        self, builder: trt.Builder, network: trt.INetworkDefinition, config: trt.IBuilderConfig, core: int
    ) -> None:
        import tensorrt as trt

        cores = builder.num_DLA_cores
        if core >= cores:
            raise BackendError(
                f"DLA core {core} was asked for, but {self._gpu.name} has {cores or 'none'} under TensorRT {self._version}",
                hint="leave out --dla" if not cores else f"--dla {cores - 1}",
            )
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
        layers = [layer for k in range(network.num_layers) if (layer := network.get_layer(k)) is not None]
        on_gpu = [layer for layer in layers if not config.can_run_on_DLA(layer)]
        kinds = sorted({layer.type.name for layer in on_gpu})
        self._listener.on_step(
            f"DLA core {core} takes {len(layers) - len(on_gpu)} of {len(layers)} layers, the GPU the others"
            + (f" ({', '.join(kinds)})" if kinds else "")
        )

    def _set_timing_cache(self, config: trt.IBuilderConfig, path: Path) -> trt.ITimingCache:
        """Let the build use what earlier ones on the same GPU and TensorRT have measured; the result has to outlive it."""
        try:
            content = path.read_bytes()
        except OSError:
            content = b""
        for candidate in (content, b""):
            timings = config.create_timing_cache(candidate)
            if timings is not None and config.set_timing_cache(timings, ignore_mismatch=False):
                if candidate:
                    self._listener.on_step(f"timing cache {path}")
                self._messages.errors.clear()  # what was said about an unfit one is not why a build fails
                return timings
        raise self._failed()

    def _keep_timing_cache(self, config: trt.IBuilderConfig, path: Path) -> None:
        timings = config.get_timing_cache()
        try:
            if timings is not None:
                write_atomically(path, bytes(memoryview(timings.serialize())))
        except OutputError as error:  # the engine is built all the same
            self._listener.on_step(f"the next build will not be quicker: {error}")

    def _inspect(self, plan: memoryview) -> str:
        """Return what the inspector says about an engine, as JSON."""
        import tensorrt as trt

        runtime = trt.Runtime(self._logger)
        if version.TRT_GE_86 and self._request.options.is_version_compatible:
            runtime.engine_host_code_allowed = True  # it was made a moment ago, here
        if self._request.options.dla_core is not None:
            runtime.DLA_core = self._request.options.dla_core
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise self._failed()
        inspector = engine.create_engine_inspector()
        if self._request.options.batch[2] > 1:
            context = engine.create_execution_context()
            if context is None:
                raise self._failed()
            for k in range(engine.num_io_tensors):
                name = engine.get_tensor_name(k)
                if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                    context.set_input_shape(name, tuple(engine.get_tensor_profile_shape(name, 0)[1]))
            inspector.execution_context = context  # types of layers with free shapes are known for given ones alone
        return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))

    def _failed(self) -> BuildError:
        reasons = list(dict.fromkeys(self._messages.errors[-3:])) or [self._messages.last()]
        remedy = {"int8": "build --fp16", "fp16": "try --fp32"}.get(self._request.recipe.precision, "try another --opt-level")
        if self._request.int8_route == "qdq" and not version.TRT_GE_11:
            remedy += ", or try --int8-route implicit"
        return BuildError(
            f"TensorRT {self._version} failed to build {self._request.recipe.name}: {'; '.join(reasons)}",
            hint=f"if it ran out of memory, give another --workspace; else {remedy}",
        )


def _node(path: Path, index: int) -> tuple[str, str]:
    """Return name and operator of an ONNX node, empty where there is none of that index."""
    import onnx

    nodes = onnx.load(str(path), load_external_data=False).graph.node if index >= 0 else ()
    return (nodes[index].name, nodes[index].op_type) if index < len(nodes) else ("", "")
