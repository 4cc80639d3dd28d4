"""OpenVINO on the CPU: the fastest INT8 there, and bf16 where the CPU has it."""

from __future__ import annotations

import logging
import sys
from functools import cache
from pathlib import Path
from typing import Any

from edgesod.errors import BackendError, InputError
from edgesod.recipe import Precision
from edgesod.runtime.compiled import CompiledFile
from edgesod.runtime.session import Arrays, Session
from edgesod.threads import physical_cores, resolve_threads
from edgesod.types import TensorSpec


def _import_openvino() -> Any:
    """Import OpenVINO without its telemetry.

    Merely importing it writes a client id to the home folder and reports the import to Google Analytics from a forked
    process, asking nobody. Without this package it falls back to a stub.
    """
    telemetry = "openvino_telemetry"
    if telemetry in sys.modules:
        import openvino  # type: ignore[import-untyped]

        return openvino
    sys.modules[telemetry] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        del sys.modules[telemetry]
    return openvino


ov = _import_openvino()

NAME = "openvino"

_DEVICE = "CPU"

log = logging.getLogger("edgesod.runtime")


class OpenVinoSession(Session):
    """Compile an ONNX file whose shapes are fixed for this CPU.

    Args:
        path: The ONNX file. INT8 must have unsigned 8-bit activations: on signed ones OpenVINO gives wrong maps without
            saying so, so they are refused.
        precision: ``fp32`` and ``int8`` compute what is not quantised in fp32, and so does ``fp16``, because CPUs have
            hardly any fp16 arithmetic; ``bf16`` computes everything in bf16. It is always set: left alone, OpenVINO
            turns fp32 into bf16 wherever it can.
        threads: CPU threads; every physical core this process may use where ``None``.
        cache: Folder in which the compiled network is kept for the next start (:mod:`edgesod.runtime.compiled`).

    Raises:
        BackendError: ``bf16`` on a CPU without it, signed 8-bit activations, or OpenVINO cannot compile the network.
        InputError: The file is not a network, or a shape is not fixed.
    """

    def __init__(self, path: Path, precision: Precision, threads: int | None = None, cache: Path | None = None) -> None:
        if precision == "bf16" and "BF16" not in capabilities():
            raise BackendError(
                f"this CPU has no bf16 arithmetic: OpenVINO finds {', '.join(capabilities())}", hint="use fp32 or int8"
            )
        num_threads = resolve_threads(threads)
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": num_threads,
        }
        if num_threads < physical_cores():
            # or it would keep to cores that others, a second engine or a pipeline's stages, also want
            settings["ENABLE_CPU_PINNING"] = False
        kept = CompiledFile(cache, path, _conditions(settings)) if cache is not None else None
        compiled = _restored(kept, settings) or _compiled(path, settings, kept)
        super().__init__(NAME, map(_spec, compiled.inputs), map(_spec, compiled.outputs))
        self._request = compiled.create_infer_request()

    def _run(self, feeds: Arrays) -> Arrays:
        # inputs are read in place; outputs are copied, because the request writes to the same memory every time
        results = self._request.infer(feeds, share_inputs=True, share_outputs=False)
        return {spec.name: results[k] for k, spec in enumerate(self.outputs)}

    def _close(self) -> None:
        self._request = None


@cache
def capabilities() -> tuple[str, ...]:
    """Return the arithmetic this CPU offers in OpenVINO's words, such as ``FP32``, ``BF16``, ``INT8``."""
    return tuple(_core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES"))


@cache
def _core() -> Any:
    return ov.Core()


def _conditions(settings: dict[str, Any]) -> tuple[str, ...]:
    """Return what a compiled network depends on besides its ONNX; the number of threads is chosen when it is loaded."""
    cpu = str(_core().get_property(_DEVICE, "FULL_DEVICE_NAME"))
    return NAME, str(ov.__version__), cpu, *capabilities(), str(settings["INFERENCE_PRECISION_HINT"])


def _restored(kept: CompiledFile | None, settings: dict[str, Any]) -> Any:
    """Return the network that was compiled at an earlier start, ``None`` where there is none that fits."""
    blob = kept.read() if kept is not None else None
    if blob is None:
        return None
    try:
        return _core().import_model(blob, _DEVICE, settings)
    except RuntimeError as error:  # OpenVINO compares version and instruction set by itself, too
        log.debug("OpenVINO does not take what it compiled before: %s", _last_line(error))
        return None


def _compiled(path: Path, settings: dict[str, Any], kept: CompiledFile | None) -> Any:
    model = _read(path)
    for port in (*model.inputs, *model.outputs):
        _spec(port)  # a network without fixed shapes is refused before it is compiled
    _refuse_signed(model, path)
    try:
        compiled = _core().compile_model(model, _DEVICE, settings)
    except RuntimeError as error:
        raise BackendError(
            f"OpenVINO cannot compile {path}: {_last_line(error)}", hint="use the onnxruntime backend"
        ) from error
    if kept is not None:
        kept.write(compiled.export_model().getvalue())
    return compiled


def _refuse_signed(model: Any, path: Path) -> None:
    """Raise where an activation is quantised to signed 8 bits: to OpenVINO a fake quantisation that is made int8."""
    for node in model.get_ops():
        if node.get_type_name() != "FakeQuantize" or node.input_value(0).get_node().get_type_name() == "Constant":
            continue
        readers = [port.get_node() for port in node.output(0).get_target_inputs()]
        if any(reader.get_output_element_type(0).get_type_name() == "i8" for reader in readers):
            raise BackendError(
                f"{path} has signed 8-bit activations, on which OpenVINO gives wrong maps on CPUs",
                hint="use the onnxruntime backend, or build it for CPUs: `edgesod build --int8`",
            )


def _read(path: Path) -> Any:
    # by the ONNX reader alone: given a file that is no network, the general one tries them all, and some write to stderr
    from openvino.frontend import FrontEndManager  # type: ignore[import-untyped]

    reader = FrontEndManager().load_by_framework("onnx")
    try:
        model = reader.convert(reader.load(str(path)))
    except Exception as error:  # its exception types share no base but this one
        raise InputError(
            f"OpenVINO cannot read {path}: {_last_line(error)}",
            hint="export it again: `edgesod export --model NAME --weights FILE`",
        ) from error
    if not model.inputs or not model.outputs:
        raise InputError(f"{path} holds no network: it has {len(model.inputs)} inputs and {len(model.outputs)} outputs")
    return model


def _spec(port: Any) -> TensorSpec:
    # the node keeps the ONNX name, where the tensor may have collected several
    name = port.node.friendly_name.removesuffix("/sink_port_0")
    if port.partial_shape.is_dynamic:
        raise InputError(
            f"{name!r} has the shape {port.partial_shape}, which is not fixed",
            hint="export the network at one size: `edgesod export`",
        )
    return TensorSpec(name, tuple(port.shape), port.element_type.to_dtype().name)


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
