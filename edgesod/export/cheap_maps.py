"""Rewrite an FP32 ONNX for CPUs: the same maps from fewer operations.

Where a network makes its maps, single channels at the full size of the input, CPUs waste most of what they compute: a
convolution with one output channel fills one of the 16 lanes of a vector, and resizing one channel fills none. Three
identities mend that; each is exact but for the order in which floats are added.

- A 1×1 convolution over upsampled maps commutes with upsampling, so its weights go into the convolutions that make the maps
  and what is left of it is a sum.
- Bilinear resizing is linear and separable: ``R_h m R_wᵀ``. The sum over several maps is one product,
  ``[R_h1 R_h2 …] [m_1 R_w1ᵀ; m_2 R_w2ᵀ; …]``.
- A 3×3 convolution with one output channel is a 6×6 one of stride 4 with 16 of them, one for each pixel of a 4×4 block, and
  ``DepthToSpace``: where a vector holds 16 channels, a quarter of the products.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgesod.files import replacing

_BLOCK = 4
_FEWEST_CHANNELS = 16
"""With fewer input channels than this a blocked convolution gains nothing."""


def write_cheap_maps(source: str | Path, target: str | Path) -> bool:
    """Write ``source`` with its maps made in fewer operations, and return whether there was anything to change.

    Args:
        source: FP32 ONNX of a fixed shape, simplified (:mod:`edgesod.export.simplify`). Tensors that are not rewritten keep
            their names, so a calibration table of ``source`` fits ``target``.
        target: The file to write, of the same opset and IR version; nothing is written where nothing changes.

    Raises:
        OutputError: ``target`` cannot be written.
    """
    graph = _Graph(onnx.load(source))
    changes = [_fuse_side_maps(graph, node) for node in list(graph.nodes)]
    changes += [_block_convolution(graph, node) for node in list(graph.nodes)]
    if not any(changes):
        return False
    model = graph.finished()
    onnx.checker.check_model(model, full_check=True)
    with replacing(target) as temporary:
        onnx.save(model, temporary)
    return True


def resize_matrix(small: int, large: int) -> NDArray[np.float32]:
    """Return the float32 ``(large, small)`` matrix of ONNX's linear half-pixel resize along one axis."""
    at = np.clip((np.arange(large) + 0.5) * small / large - 0.5, 0, small - 1)
    low = np.minimum(at.astype(int), max(small - 2, 0))
    matrix = np.zeros((large, small))
    matrix[np.arange(large), low] = 1 - (at - low)
    matrix[np.arange(large), np.minimum(low + 1, small - 1)] += at - low
    return matrix.astype(np.float32)


class _Graph:
    """The model with what its nodes lack: shapes, constants, who makes and who reads a tensor.

    What is added is named after the tensor it serves: ONNX asks no name of a node.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        self.constants = {constant.name: constant for constant in model.graph.initializer}
        self.producer = {output: node for node in self.nodes for output in node.output}
        self.readers = Counter(name for node in self.nodes for name in node.input)
        self.readers.update(output.name for output in model.graph.output)
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self._shapes = {
            entry.name: tuple(dim.dim_value for dim in entry.type.tensor_type.shape.dim)
            for entry in (*inferred.input, *inferred.value_info, *inferred.output)
        }

    def size_hw(self, tensor: str) -> tuple[int, int]:
        """Return height and width of an NCHW tensor, zeros where they are not fixed or unknown."""
        shape = self._shapes.get(tensor, ())
        return shape[2:] if len(shape) == 4 and all(shape) else (0, 0)

    def array(self, name: str) -> NDArray[np.float32]:
        return numpy_helper.to_array(self.constants[name])

    def constant(self, name: str, value: NDArray[np.float32]) -> str:
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name)
        return name

    def replace(self, old: onnx.NodeProto, new: list[onnx.NodeProto]) -> None:
        """Put nodes where one was; the last of them makes its output."""
        at = next(k for k, node in enumerate(self.nodes) if node is old)
        self.nodes[at : at + 1] = new
        self.producer |= {output: node for node in new for output in node.output}

    def finished(self) -> onnx.ModelProto:
        """Return the model with these nodes, without what nothing reads any more."""
        wanted = {output.name for output in self.model.graph.output}
        kept = []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                kept.append(node)
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        graph = model.graph
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(reversed(kept))
        graph.initializer.extend(constant for name, constant in self.constants.items() if name in wanted)
        return model


def _fuse_side_maps(graph: _Graph, node: onnx.NodeProto) -> bool:
    """Replace a 1×1 convolution over upsampled maps, if this is one, by scaled maps and their upsampled sum."""
    weights = _conv_weights(graph, node)
    if weights is None or weights.shape[0] != 1 or weights.shape[2:] != (1, 1):
        return False
    concat = graph.producer.get(node.input[0])
    if concat is None or concat.op_type != "Concat" or graph.readers[concat.output[0]] != 1:
        return False
    makers: list[onnx.NodeProto] = []
    maps: list[str] = []
    for tensor in concat.input:
        source = _upsampled(graph, tensor) or tensor
        maker = graph.producer.get(source)
        made = _conv_weights(graph, maker) if maker is not None else None
        if maker is None or made is None or made.shape[0] != 1 or graph.readers[tensor] != 1 or graph.readers[source] != 1:
            return False
        makers.append(maker)
        maps.append(source)
    output, factors = node.output[0], weights.reshape(-1)
    shift = graph.array(node.input[2]) if len(node.input) > 2 else np.zeros(1, np.float32)
    for k, (maker, factor) in enumerate(zip(makers, factors, strict=True)):
        bias = graph.array(maker.input[2]) if len(maker.input) > 2 else np.zeros(1, np.float32)
        side = maker.output[0]
        maker.input[1] = graph.constant(f"{side}/fused_weight", graph.array(maker.input[1]) * factor)
        del maker.input[2:]
        maker.input.append(graph.constant(f"{side}/fused_bias", bias * factor + (shift if k == 0 else 0)))
    graph.replace(node, _upsampled_sum(graph, maps, output, node.name))
    return True


def _upsampled_sum(graph: _Graph, maps: list[str], output: str, name: str) -> list[onnx.NodeProto]:
    """Return nodes that resize maps to the size of ``output`` and add them up, by two products of matrices each."""
    height, width = graph.size_hw(output)
    nodes: list[onnx.NodeProto] = []
    terms, rows, stacked = [], [], []
    for k, tensor in enumerate(maps):
        h, w = graph.size_hw(tensor)
        if (h, w) == (height, width):
            terms.append(tensor)
            continue
        right = graph.constant(f"{output}/across_{k}", resize_matrix(w, width).T)
        rows.append(f"{output}/rows_{k}")
        stacked.append(resize_matrix(h, height))
        nodes.append(helper.make_node("MatMul", [tensor, right], [rows[-1]], name=f"{output}/across_{k}/MatMul"))
    if rows:
        left = graph.constant(f"{output}/down", np.concatenate(stacked, axis=1))
        nodes.append(helper.make_node("Concat", rows, [f"{output}/rows"], name=f"{output}/rows/Concat", axis=2))
        terms.append(f"{output}/resized")
        nodes.append(helper.make_node("MatMul", [left, f"{output}/rows"], [terms[-1]], name=f"{output}/down/MatMul"))
    nodes.append(helper.make_node("Sum", terms, [output], name=name))
    return nodes


def _upsampled(graph: _Graph, tensor: str) -> str | None:
    """Return what a tensor was resized from, where that was linear, half-pixel, and to a larger size."""
    node = graph.producer.get(tensor)
    if node is None or node.op_type != "Resize":
        return None
    how = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    is_plain = (
        how.get("mode") == b"linear"
        and how.get("coordinate_transformation_mode", b"half_pixel") in (b"half_pixel", b"pytorch_half_pixel")
        and not how.get("antialias", 0)
    )
    small, large = graph.size_hw(node.input[0]), graph.size_hw(tensor)
    if not is_plain or min(small) < 2 or large[0] < small[0] or large[1] < small[1]:
        return None
    return str(node.input[0])


def _block_convolution(graph: _Graph, node: onnx.NodeProto) -> bool:
    """Replace a 3×3 convolution with one output channel, if this is one, by one that makes a 4×4 block at a time."""
    weights = _conv_weights(graph, node)
    if weights is None or weights.shape[0] != 1 or weights.shape[1] < _FEWEST_CHANNELS or weights.shape[2:] != (3, 3):
        return False
    height, width = graph.size_hw(node.output[0])
    how = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    is_plain = (
        how.get("pads") == [1, 1, 1, 1] and how.get("strides", [1, 1]) == [1, 1] and how.get("dilations", [1, 1]) == [1, 1]
    )
    if not is_plain or not height or height % _BLOCK or width % _BLOCK:
        return False
    side = _BLOCK + 2
    blocked = np.zeros((_BLOCK**2, weights.shape[1], side, side), np.float32)
    for k in range(_BLOCK**2):
        row, column = divmod(k, _BLOCK)
        blocked[k, :, row : row + 3, column : column + 3] = weights[0]
    output = node.output[0]
    inputs = [node.input[0], graph.constant(f"{output}/blocked_weight", blocked)]
    if len(node.input) > 2:
        inputs.append(graph.constant(f"{output}/blocked_bias", np.repeat(graph.array(node.input[2]), _BLOCK**2)))
    graph.replace(
        node,
        [
            helper.make_node(
                "Conv",
                inputs,
                [f"{output}/blocks"],
                name=node.name,
                kernel_shape=[side, side],
                strides=[_BLOCK, _BLOCK],
                pads=[1, 1, 1, 1],
            ),
            helper.make_node("DepthToSpace", [f"{output}/blocks"], [output], name=f"{output}/unblock", blocksize=_BLOCK),
        ],
    )
    return True


def _conv_weights(graph: _Graph, node: onnx.NodeProto) -> NDArray[np.float32] | None:
    """Return the weights of an ordinary convolution with constant ones, ``None`` for whatever else a node is."""
    if node.op_type != "Conv" or any(name not in graph.constants for name in node.input[1:]):
        return None
    if any(attribute.name == "group" and attribute.i != 1 for attribute in node.attribute):
        return None
    return graph.array(node.input[1])
