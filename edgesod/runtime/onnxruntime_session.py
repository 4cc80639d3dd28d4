"""ONNX Runtime on the CPU: always there, always right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort  # type: ignore[import-untyped]

from edgesod.errors import BackendError, InputError
from edgesod.recipe import Precision
from edgesod.runtime.session import Arrays, Session
from edgesod.threads import resolve_threads
from edgesod.types import TensorSpec

NAME = "onnxruntime"

_ERRORS_ONLY = 3
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OnnxRuntimeSession(Session):
    """Load an ONNX file whose shapes are fixed.

    Args:
        path: The ONNX file; its types are the precision it runs at.
        precision: What the file was written for; only ``bf16`` matters here, which ONNX Runtime cannot do on a CPU.
        threads: CPU threads; every physical core this process may use where ``None``.

    Raises:
        BackendError: ``precision`` is ``bf16``.
        InputError: The file cannot be loaded, or a shape is not fixed.
    """

    def __init__(self, path: Path, precision: Precision, threads: int | None = None) -> None:
        if precision == "bf16":
            raise BackendError("ONNX Runtime does not compute in bf16 on CPUs", hint="use the openvino backend, or fp32")
        options = ort.SessionOptions()
        options.intra_op_num_threads = resolve_threads(threads)
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        try:
            session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exception types share no base but this one
            raise InputError(
                f"ONNX Runtime cannot load {path}: {_first_line(error)}",
                hint="export it again: `edgesod export --model NAME --weights FILE`",
            ) from error
        super().__init__(NAME, map(_spec, session.get_inputs()), map(_spec, session.get_outputs()))
        self._session: ort.InferenceSession | None = session
        self._names = [spec.name for spec in self.outputs]

    def _run(self, feeds: Arrays) -> Arrays:
        assert self._session is not None  # only a closed session has none, and a closed one does not run
        # every run allocates its own outputs, so they are the caller's to keep
        return dict(zip(self._names, self._session.run(self._names, feeds), strict=True))

    def _close(self) -> None:
        self._session = None


def _spec(tensor: Any) -> TensorSpec:
    if not all(isinstance(size, int) for size in tensor.shape):
        raise InputError(
            f"{tensor.name!r} has the shape {tensor.shape}, which is not fixed",
            hint="export the network at one size: `edgesod export`",
        )
    return TensorSpec(tensor.name, tuple(tensor.shape), _DTYPES.get(tensor.type, tensor.type))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
