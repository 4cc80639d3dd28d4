"""An engine file, checked against this machine, deserialised, and ready for execution contexts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgesod.errors import BackendError, DeviceError, InputError, ManifestMismatch
from edgesod.manifest import FILE_NAME, Manifest, TensorRtBuild, check_gpu, check_manifest, read_manifest
from edgesod.runtime import tensorrt_version as version
from edgesod.runtime.cuda import Cuda, open_cuda
from edgesod.runtime.tensorrt_log import Messages, starting, the_logger
from edgesod.types import TensorSpec

if TYPE_CHECKING:
    import tensorrt as trt

_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
"""By the name of a ``tensorrt.DataType``; ``tensorrt.nptype`` fails with NumPy 1.24 and later in TensorRT 8.5."""


class Engine:
    """A deserialised engine and the runtime it came from.

    Args:
        path: The engine file, as TensorRT serialised it. A manifest beside it is compared with this machine first.
        cuda: The GPU, bound to the calling thread; the engine has to be closed before it.
        built: How it was built, for one that was built here a moment ago and has no manifest yet.

    Raises:
        BackendError: TensorRT is missing, too old, does not work with this GPU, or refuses the engine.
        ManifestMismatch: The engine was made for another TensorRT or GPU.
        InputError: The file cannot be read.
    """

    def __init__(self, path: Path, cuda: Cuda, built: TensorRtBuild | None = None) -> None:
        here = version.require_tensorrt(cuda)
        import tensorrt as trt

        manifest = _manifest_of(path)
        if manifest is not None:
            check_gpu(path.parent, manifest, cuda.device_info(), here)
            built = manifest.tensorrt
        try:
            plan = path.read_bytes()
        except OSError as error:
            raise InputError(f"there is no engine that can be read at {path}: {error.strerror or error}") from error
        self.messages = Messages()
        with starting(here, cuda.device_info(), self.messages):
            self._runtime: trt.Runtime | None = trt.Runtime(the_logger())
        self._engine: trt.ICudaEngine | None = None
        try:
            if built is not None and built.dla_core is not None:
                self._runtime.DLA_core = built.dla_core
            if version.TRT_GE_86 and built is not None and built.is_version_compatible:
                if manifest is not None:
                    check_manifest(path.parent)  # such an engine brings code along: it has to be the very file that was built
                self._runtime.engine_host_code_allowed = True
            self._engine = self._runtime.deserialize_cuda_engine(plan)
            if self._engine is None:
                raise _refused(path, manifest, cuda, here, self.messages.last())
        except BaseException:
            self.close()  # not left to the traceback, which may outlive the GPU's context
            raise

    @property
    def native(self) -> trt.ICudaEngine:
        """TensorRT's engine."""
        assert self._engine is not None  # only a closed one has none, and nobody asks a closed one
        return self._engine

    def names(self) -> tuple[list[str], list[str]]:
        """Return the names of the inputs and of the outputs."""
        import tensorrt as trt

        every = [self.native.get_tensor_name(k) for k in range(self.native.num_io_tensors)]
        inputs = [name for name in every if self.native.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        return inputs, [name for name in every if name not in inputs]

    def context(self) -> trt.IExecutionContext:
        """Make an execution context with every shape set; free dimensions take the smallest size of the first profile.

        Raises:
            DeviceError: There is no memory for one.
            BackendError: There is one already, and TensorRT before 10 gives an engine with a free batch no other.
        """
        context = self.native.create_execution_context()
        if context is None:
            raise DeviceError(
                f"TensorRT cannot make an execution context: {self.messages.last()}",
                hint="close other programs that use the GPU, or build with a smaller workspace",
            )
        for name in self.names()[0]:
            if -1 in tuple(self.native.get_tensor_shape(name)):
                if context.active_optimization_profile < 0:  # another context has it
                    del context  # or the traceback would keep it alive
                    raise BackendError(
                        f"TensorRT {version.tensorrt_version()} has one execution context alone run an engine with a free batch",
                        hint="build it without --batch, or update to TensorRT 10 or later",
                    )
                smallest = tuple(self.native.get_tensor_profile_shape(name, 0)[0])
                if not context.set_input_shape(name, smallest):
                    del context  # or the traceback would keep it alive
                    raise BackendError(f"{name!r} cannot have the shape {smallest}: {self.messages.last()}")
        return context

    def spec(self, context: trt.IExecutionContext, name: str) -> TensorSpec:
        """Describe a tensor at the shape it has in a context.

        Raises:
            BackendError: Its type has no counterpart in NumPy, it does not lie in the GPU's memory in C order, or its shape is
            not known before a run.
        """
        import tensorrt as trt

        kind = self.native.get_tensor_dtype(name).name
        if kind not in _DTYPES:
            raise BackendError(f"{name!r} of the engine is {kind}, which NumPy does not have", hint="build it with FP32 ends")
        layout = self.native.get_tensor_format(name)
        if layout != trt.TensorFormat.LINEAR or self.native.get_tensor_location(name) != trt.TensorLocation.DEVICE:
            raise BackendError(
                f"{name!r} of the engine is {layout.name} in the {self.native.get_tensor_location(name).name}'s memory; edgesod "
                "takes LINEAR in the DEVICE's",
                hint="build it without --inputIOFormats and --outputIOFormats; `edgesod build --backend tensorrt` does",
            )
        shape = tuple(context.get_tensor_shape(name))
        if -1 in shape:
            raise BackendError(
                f"the size of {name!r} of the engine depends on what it computes: {shape}",
                hint="edgesod runs networks whose maps have a size that follows from the inputs'",
            )
        return TensorSpec(name, shape, _DTYPES[kind])

    def close(self) -> None:
        """Let go of the engine, then of the runtime; contexts have to be gone. Safe to call twice."""
        self._engine = None
        self._runtime = None


def check_here(folder: Path, manifest: Manifest) -> None:
    """Compare an engine's manifest with the GPU and the TensorRT that are here, without loading the engine.

    Raises:
        BackendError: There is no GPU or no TensorRT to compare it with.
        ManifestMismatch: It was made for others.
    """
    with open_cuda() as cuda:
        here = version.require_tensorrt(cuda)
        check_gpu(folder, manifest, cuda.device_info(), here)


def _manifest_of(path: Path) -> Manifest | None:
    """Return the manifest beside an engine, if there is one and it is about this file."""
    if not (path.parent / FILE_NAME).is_file():
        return None
    manifest = read_manifest(path.parent)
    return manifest if manifest.engine_file == path.name else None


def _refused(path: Path, manifest: Manifest | None, cuda: Cuda, here: str, reason: str) -> BackendError:
    gpu = cuda.device_info()
    if manifest is None or manifest.tensorrt is None:
        return BackendError(
            f"TensorRT {here} on {gpu.text} does not take {path}, which does not say what it was built with: {reason}",
            hint="an engine runs on the TensorRT and the kind of GPU it was built with; build it here: "
            "`edgesod build --model NAME --backend tensorrt`",
        )
    built = manifest.tensorrt
    return ManifestMismatch(
        f"{path} was built with TensorRT {built.version} on {built.gpu.text}; TensorRT {here} on {gpu.text} does not take it: "
        f"{reason}",
        hint=f"rebuild it here: `{manifest.rebuild}`",
    )
