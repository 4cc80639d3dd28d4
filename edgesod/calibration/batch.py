"""Let an ONNX that was exported for one image take any number of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import numpy_helper

from edgesod.errors import InputError
from edgesod.files import replacing

BATCH = "batch"
"""Name of the free dimension."""
_HINT = "build it for one image at a time: leave out --batch"


def free_batch(source_onnx: str | Path, target_onnx: str | Path, *, compare: bool = True) -> None:
    """Write an ONNX of one image as one of any number, and make sure that it computes the same for each.

    What had the batch written into it is Resize by size, which becomes Resize by factor where the factors are exact.

    Args:
        source_onnx: ONNX whose inputs and outputs all begin with a dimension of 1; of any opset and precision.
        target_onnx: The file to write.
        compare: Run both; ``False`` for another precision of a network that was compared already.

    Raises:
        InputError: The network has the batch written into it in another way, or resizes by a factor that is no whole number.
        OutputError: The file cannot be written.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load(source_onnx))
    graph = model.graph
    constants = {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}
    shapes = {
        entry.name: [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
        for entry in (*graph.input, *graph.value_info, *graph.output)
    }
    for node in graph.node:
        if node.op_type == "Resize" and len(node.input) == 4 and node.input[3] in constants:
            factors = _factors(node, shapes[node.input[0]], constants[node.input[3]])
            graph.initializer.append(numpy_helper.from_array(factors, f"{node.output[0]}/factors"))
            del node.input[2:]
            node.input.append(f"{node.output[0]}/factors")
    del graph.value_info[:]
    read = {name for node in graph.node for name in node.input}
    for constant in [constant for constant in graph.initializer if constant.name not in read]:
        graph.initializer.remove(constant)
    for entry in (*graph.input, *graph.output):
        entry.type.tensor_type.shape.dim[0].dim_param = BATCH
    model = onnx.shape_inference.infer_shapes(model)
    with replacing(target_onnx) as temporary:
        onnx.save(model, temporary)
        if compare:
            _compare(source_onnx, temporary)


def _factors(node: onnx.NodeProto, shape: list[int], sizes: NDArray[np.int64]) -> NDArray[np.float32]:
    factors = np.asarray([to / size for to, size in zip(sizes.tolist(), shape, strict=True)], np.float32)
    if (factors != np.rint(factors)).any():
        raise InputError(
            f"{node.name!r} resizes {shape} to {sizes.tolist()}, which is no whole factor, so the batch cannot be freed",
            hint="export it at a size that is a multiple of 32, or " + _HINT,
        )
    return factors


def _compare(single: str | Path, free: str | Path) -> None:
    """Raise unless two images at once give what they give one by one."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        one, many = (onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"]) for path in (single, free))
        generator = np.random.default_rng(0)
        feeds = {
            entry.name: generator.normal(0, 1, (2, *entry.shape[1:])).astype(np.float32)  # the scale of a normalised image
            for entry in one.get_inputs()
        }
        together = many.run(None, feeds)
        for k in range(2):
            alone = one.run(None, {name: values[k : k + 1] for name, values in feeds.items()})
            for got, expected in zip(together, alone, strict=True):
                # kernels may add in another order, and a value between two integers then goes either way
                if got.shape[1:] != expected.shape[1:] or np.abs(got[k] - expected[0]).mean() > 0.01 * expected.std() + 1e-6:
                    raise InputError("its images would not be computed independently of each other")
    except Exception as error:  # ONNX Runtime's exception types share no base but this one
        first = str(error).strip().splitlines()[0]
        raise InputError(f"the batch of {single} cannot be freed: {first}", hint=_HINT) from error
