"""Resize, colour and normalisation as the first nodes of a network: it then takes a camera's frame as it is.

They are those of :func:`edgesod.processing.preprocess.preprocess`, with one difference: nothing is rounded to 8 bits in
between. So the tensor may differ from the CPU's by half a grey level for every halving, half a one for the linear resize, and
the little that OpenCV's 11-bit weights are off (:func:`tolerance_levels`).

Normalisation is not folded into the first convolution: that pads with zeros, which are mean grey after it and black before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgesod.errors import InputError, UsageError
from edgesod.files import replacing
from edgesod.recipe import Preprocessing, Recipe

FRAME = "frame"
"""Name of the input."""

_ROUNDING = 0.5
_WEIGHTS = 0.25
"""OpenCV's bilinear weights are multiples of 1/2048 in each axis: at most 2 · 255 / 4096 grey levels off, and a margin."""


def write_frame_input(source: str | Path, target: str | Path, recipe: Recipe) -> None:
    """Write a network again that takes frames of ``recipe.frame_hw``, uint8 BGR ``(1, H, W, 3)``.

    Args:
        source: ONNX with one float32 input ``(1, 3, h, w)`` of the recipe's size: FP32, FP16 between FP32 ends, or Q/DQ.
            Its input keeps its name as the tensor that the new nodes make, so calibration ranges of it stay true.
        target: The file to write; ``source`` itself will do.
        recipe: Gives the frame, the size and what is done in between.

    Raises:
        InputError: ``source`` cannot be read, or its input is something else.
        UsageError: The recipe names no frame, or its preprocessing cannot be done in a network: dividing by the frame's own
            largest value, or halving an odd number of pixels.
        OutputError: ``target`` cannot be written.
    """
    try:
        model = onnx.load(str(source))
    except (OSError, DecodeError) as error:
        raise InputError(f"{source} cannot be read as ONNX: {error}") from error
    graph = model.graph
    wanted = (1, 3, *recipe.size_hw)
    entry = graph.input[0] if len(graph.input) == 1 else None
    if entry is None or _shape(entry) != wanted or entry.type.tensor_type.elem_type != TensorProto.FLOAT:
        raise InputError(f"{source} does not take one float32 image {wanted}", hint="export it again: `edgesod export`")
    front = _Front(recipe, entry.name)
    network = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*front.nodes, *network])
    graph.initializer.extend(front.constants)
    graph.input.append(helper.make_tensor_value_info(FRAME, TensorProto.UINT8, front.frame_shape))
    onnx.checker.check_model(model, full_check=True)
    with replacing(target) as temporary:
        onnx.save(model, temporary)


def tolerance_levels(recipe: Recipe) -> float:
    """Return by how many grey levels of 255 the tensor may differ from :func:`~edgesod.processing.preprocess.preprocess`'s.

    Raises:
        UsageError: As :func:`write_frame_input`.
    """
    halvings, is_resized = _steps(recipe)
    return _ROUNDING * halvings + (_ROUNDING + _WEIGHTS if is_resized else 0.0)


class _Front:
    """The new nodes, from :data:`FRAME` to the tensor ``made``."""

    def __init__(self, recipe: Recipe, made: str) -> None:
        halvings, is_resized = _steps(recipe)
        assert recipe.frame_hw is not None  # or there were no steps
        self.frame_shape = (1, *recipe.frame_hw, 3)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        # first of all, because TensorRT does nothing else with unsigned bytes
        tensor = self._add("Cast", [FRAME], to=TensorProto.FLOAT)
        tensor = self._add("Transpose", [tensor], perm=[0, 3, 1, 2])
        for _ in range(halvings):
            tensor = self._add("AveragePool", [tensor], kernel_shape=[2, 2], strides=[2, 2])
        if is_resized:
            sizes = self._constant("sizes", np.array([1, 3, *recipe.size_hw]))
            modes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
            tensor = self._add("Resize", [tensor, "", "", sizes], **modes)
        if recipe.preprocessing.colour == "RGB":
            tensor = self._add("Gather", [tensor, self._constant("rgb", np.array([2, 1, 0]))], axis=1)
        low, step = _normalisation(recipe.preprocessing)
        tensor = self._add("Sub", [tensor, self._constant("mean", low)])
        self._add("Mul", [tensor, self._constant("scale", step)], made)

    def _add(self, op_type: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        name = f"{FRAME}/{op_type}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [output or f"{name}/made"], name=name, **attributes))
        return output or f"{name}/made"

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(values, f"{FRAME}/{name}"))
        return f"{FRAME}/{name}"


def _steps(recipe: Recipe) -> tuple[int, bool]:
    """Return how often a frame is halved, and whether a linear resize comes after."""
    if recipe.frame_hw is None:
        raise UsageError(f"{recipe.name} names no size of frames", hint="--frame-input WIDTHxHEIGHT")
    if recipe.preprocessing.divide_by == "max":
        raise UsageError(
            "dividing by the frame's own largest value cannot be done in the network",
            hint='divide_by = "255" in the recipe, or leave out --frame-input',
        )
    height, width = recipe.frame_hw
    halvings = 0
    if recipe.preprocessing.resize == "halve-linear":
        while height >= 2 * recipe.size_hw[0] and width >= 2 * recipe.size_hw[1]:
            if height % 2 or width % 2:
                step = 2 ** (halvings + 1)
                even = (recipe.frame_hw[1] // step * step, recipe.frame_hw[0] // step * step)
                raise UsageError(
                    f"frames of {recipe.frame_hw[1]}×{recipe.frame_hw[0]} cannot be halved {halvings + 1} times without a rest",
                    hint=f"--frame-input {even[0]}x{even[1]}, or leave it out",
                )
            height, width, halvings = height // 2, width // 2, halvings + 1
    return halvings, (height, width) != recipe.size_hw


def _normalisation(how: Preprocessing) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what is subtracted from grey levels and what they are multiplied by then, float32 ``(1, 3, 1, 1)``."""
    mean, std = (np.array(values).reshape(1, 3, 1, 1) for values in (how.mean, how.std))
    divisor = float(how.divide_by)
    return (mean * divisor).astype(np.float32), (1 / (divisor * std)).astype(np.float32)


def _shape(entry: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in entry.type.tensor_type.shape.dim)
