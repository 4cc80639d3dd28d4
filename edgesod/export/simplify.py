"""Simplify an exported graph: fold what is constant at a fixed shape, shape arithmetic first of all."""

from __future__ import annotations

import logging
from pathlib import Path

import onnx

from edgesod.files import replacing

log = logging.getLogger("edgesod.export")


def simplify_onnx(source: str | Path, target: str | Path) -> None:
    """Write ``source`` simplified by onnxsim to ``target``; where onnxsim fails, a warning is logged and a copy written.

    Raises:
        OutputError: ``target`` cannot be written.
    """
    model = onnx.load(source)
    simplified = _simplified(model)
    with replacing(target) as temporary:
        onnx.save(model if simplified is None else simplified, temporary)


def _simplified(model: onnx.ModelProto) -> onnx.ModelProto | None:
    import onnxsim  # type: ignore[import-untyped]  # it imports torch where there is one, which takes seconds

    try:
        simplified: onnx.ModelProto
        simplified, is_right = onnxsim.simplify(model)
        onnx.checker.check_model(simplified)
    except Exception as error:  # a C++ library: anything may come out of it, and the plain file is as good
        log.warning("onnxsim failed (%s); the graph stays as torch wrote it", error)
        return None
    if not is_right:
        log.warning("onnxsim changed what the network computes; the graph stays as torch wrote it")
        return None
    simplified.ir_version = model.ir_version
    _lift_constants(simplified.graph)
    return simplified


def _lift_constants(graph: onnx.GraphProto) -> None:
    """Turn Constant nodes into initialisers: TensorRT 8 takes the scales of a Resize from nothing else."""
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        value = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
        if value is not None:
            lifted = graph.initializer.add()
            lifted.CopyFrom(value)
            lifted.name = node.output[0]
            graph.node.remove(node)
