"""Which backend runs what here, and why."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from edgesod.errors import BackendError, InputError, UsageError
from edgesod.manifest import versions_here
from edgesod.recipe import Precision
from edgesod.runtime.cuda import driver_is_installed, open_cuda
from edgesod.runtime.session import Session
from edgesod.runtime.tensorrt_version import require_installed, require_tensorrt

AUTO = "auto"
ENGINE_SUFFIXES = (".plan", ".engine")
"""How files of TensorRT's are named."""

log = logging.getLogger("edgesod.runtime")


@dataclass(frozen=True)
class BackendState:
    """Whether a backend works here.

    Attributes:
        is_usable: Whether it can be loaded.
        text: Its version, or what is wrong.
        remedy: The command that mends it; empty where nothing is wrong.
    """

    is_usable: bool
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class _Backend:
    module: str
    remedy: str
    why: dict[Precision, str]
    """Precisions it runs, and what speaks for it at each."""


_BACKENDS = {
    "tensorrt": _Backend(
        "edgesod.runtime.tensorrt_session",
        "pip install tensorrt cuda-python",
        {
            "fp32": "there is a GPU for it",
            "fp16": "there is a GPU for it",
            "int8": "there is a GPU for it",
        },
    ),
    "openvino": _Backend(
        "edgesod.runtime.openvino_session",
        "pip install openvino",
        {
            "fp32": "as fast as any at fp32, in half the memory",
            "bf16": "runs bf16, which this CPU has",
            "int8": "runs int8 fastest on CPUs",
        },
    ),
    "onnxruntime": _Backend(
        "edgesod.runtime.onnxruntime_session",
        "pip install onnxruntime",
        {
            "fp32": "runs fp32 everywhere",
            "fp16": "reads fp16 weights and computes in fp32",
            "int8": "runs int8 everywhere",
        },
    ),
}
"""By name, the preferred one first."""


_READ_ONNX = ("openvino", "onnxruntime")


def check_backend(requested: str) -> None:
    """Raise unless ``requested`` is ``"auto"`` or the name of a backend, installed or not.

    Raises:
        UsageError: There is no backend of that name.
    """
    if requested != AUTO and requested not in _BACKENDS:
        raise UsageError(f"there is no backend {requested!r}", hint=f"backends: {AUTO}, {', '.join(_BACKENDS)}")


def choose_backend(precision: Precision, requested: str = AUTO, *, reads_onnx: bool = False) -> tuple[str, str]:
    """Choose what runs an engine of some precision.

    Args:
        precision: The engine's.
        requested: ``"auto"``, or the name of a backend that must be had.
        reads_onnx: With ``"auto"``, choose among those that run an ONNX file as it is.

    Returns:
        The backend's name and the reason in a sentence that starts with it.

    Raises:
        BackendError: What was requested is not installed or cannot do it; nothing else is chosen in its place. With
            ``"auto"``: no backend can.
        UsageError: There is no backend of that name.
    """
    check_backend(requested)
    if requested != AUTO:
        if problem := _problem(requested, precision):
            raise BackendError(f"{requested} cannot be used: {problem.text}", hint=problem.remedy)
        return requested, f"{requested}: asked for, {_BACKENDS[requested].why[precision]}"
    problems: dict[str, BackendState] = {}
    for name in _READ_ONNX if reads_onnx else _BACKENDS:
        problem = _problem(name, precision)
        if problem is None:
            passed_over = "".join(f"; {other} is not used: {state.text}" for other, state in problems.items())
            return name, f"{name}: installed, {_BACKENDS[name].why[precision]}{passed_over}"
        if name != "tensorrt" or driver_is_installed():  # a machine without a GPU's driver is nothing to remark on
            problems[name] = problem
    raise BackendError(
        f"nothing here runs {precision}: " + "; ".join(f"{name}: {state.text}" for name, state in problems.items()),
        hint=next((state.remedy for state in problems.values() if state.remedy), "choose another precision"),
    )


def open_session(
    path: str | Path,
    precision: Precision,
    backend: str = AUTO,
    threads: int | None = None,
    *,
    cache: Path | None = None,
) -> Session:
    """Load an ONNX file, or an engine that TensorRT serialised, into a backend.

    Args:
        path: ONNX with fixed shapes, of the types that ``precision`` means, for ``bf16`` an fp32 one; or an engine of
            TensorRT's, by its suffix ``.plan`` or ``.engine``.
        precision: What it is run at.
        backend: ``"auto"``, or the name of a backend that must be had. With ``"auto"``, ONNX Runtime runs what OpenVINO
            refuses, such as signed 8-bit activations.
        threads: CPU threads; every physical core this process may use where ``None``.
        cache: Folder in which a backend that compiles may keep what it compiled, for a quicker start the next time.

    Raises:
        BackendError: The backend cannot be had, or cannot do this.
        ManifestMismatch: The engine was made for another TensorRT or GPU.
        InputError: The file is missing or not a network of fixed shapes.
        UsageError: There is no such backend, or fewer than one thread was asked for.
    """
    path = Path(path)
    is_engine = path.suffix in ENGINE_SUFFIXES
    name = choose_backend(precision, "tensorrt" if is_engine and backend == AUTO else backend, reads_onnx=True)[0]
    if not path.is_file():
        raise InputError(f"there is no {'engine' if is_engine else 'ONNX file'} at {path}")
    if is_engine != (name == "tensorrt"):
        raise BackendError(
            f"{name} does not run {path}: TensorRT runs engines ({', '.join(ENGINE_SUFFIXES)}), the others run ONNX files",
            hint="make an engine of the ONNX with `edgesod build --backend tensorrt`",
        )
    if name == "tensorrt":
        from edgesod.runtime.tensorrt_session import TensorRtSession

        return TensorRtSession(path)
    if name == "openvino":
        from edgesod.runtime.openvino_session import OpenVinoSession

        try:
            return OpenVinoSession(path, precision, threads, cache)
        except BackendError as error:
            if backend != AUTO or precision not in _BACKENDS["onnxruntime"].why:
                raise
            log.warning("%s: ONNX Runtime runs it instead", error)
    from edgesod.runtime.onnxruntime_session import OnnxRuntimeSession

    return OnnxRuntimeSession(path, precision, threads)


def available_backends() -> dict[str, BackendState]:
    """Try to load every backend and return how each one fares, by name, the preferred one first."""
    return {name: _state(name) for name in _BACKENDS}


def _problem(name: str, precision: Precision) -> BackendState | None:
    """Return what keeps a backend from running a precision here, or ``None``."""
    if precision not in _BACKENDS[name].why:
        where = "" if name == "tensorrt" else " on CPUs"
        return BackendState(False, f"it does not run {precision}{where}", "choose another precision or backend")
    state = _state(name)
    if not state.is_usable:
        return state
    if precision == "bf16":
        found = _load(name).capabilities()
        if "BF16" not in found:
            return BackendState(False, f"this CPU has no bf16, it offers {', '.join(found)}", "use fp32 or int8")
    return None


def _state(name: str) -> BackendState:
    if name == "tensorrt":
        return _tensorrt_state()
    try:
        _load(name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] == name:
            return BackendState(False, "it is not installed", _BACKENDS[name].remedy)
        return BackendState(False, f"it does not load: {error}", f"{_BACKENDS[name].remedy} --force-reinstall")
    except (ImportError, OSError) as error:
        return BackendState(False, f"it does not load: {error}", f"{_BACKENDS[name].remedy} --force-reinstall")
    return BackendState(True, versions_here(name).get(name, "installed"))


def _tensorrt_state() -> BackendState:
    """Ask for what TensorRT needs in the order in which it needs it, and for a GPU before TensorRT is touched."""
    try:
        require_installed()
    except BackendError as error:
        driver = "" if driver_is_installed() else ", and there is no NVIDIA driver"
        return BackendState(False, f"{error}{driver}", error.hint)
    try:
        with open_cuda() as cuda:
            return BackendState(True, f"{require_tensorrt(cuda)} on {cuda.device_info().text}, by {cuda.name}")
    except BackendError as error:
        return BackendState(False, str(error), error.hint)


def _load(name: str) -> ModuleType:
    return import_module(_BACKENDS[name].module)
