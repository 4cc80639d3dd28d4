"""Which tensors of a network are quantised: CPUs and TensorRT want different ones.

``cpu``
    Unsigned 8 bits with a zero point. Whole chains stay in 8 bits: every convolution, and the concatenation, resizing,
    pooling and addition between them, each with its output quantised after the ReLU that follows it. What a concatenation,
    a resize or a pooling reads and makes shares one scale, so that integers pass through them as they are. A concatenation
    of features with a map stays in float, and so does the residual path of a network that normalises before it convolves.
``tensorrt``
    Signed 8 bits, symmetric. Inputs of convolutions only, one pair per tensor for all of them, and the residual branch of
    an addition; nothing between convolution and ReLU, nothing around pooling, resizing and concatenation, through which
    TensorRT moves the pairs by itself. Convolutions that make maps stay in float.

In both, what follows the convolutions that make maps stays in float, sigmoid or softmax included. The files are not
interchangeable: OpenVINO computes wrong maps from the signed one, and ONNX Runtime runs it slower than FP32.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import onnx

from ._graph import Graph
from .table import Range

Scheme = Literal["cpu", "tensorrt"]

_BETWEEN = {"Concat", "Resize", "MaxPool", "Add", "AveragePool"}
"""What CPU backends compute in 8 bits between two convolutions."""
_SAME_SCALE = {"Concat", "Resize", "MaxPool"}
"""These run on the integers as they are where their inputs and their output have one scale."""
_MAP_CHANNELS = 2
"""A convolution with no more output channels than this makes a map: logits, where an 8-bit step shows."""


@dataclass
class Plan:
    """What to quantise.

    Attributes:
        signed: Whether activations are int8 around zero, and biases float; else uint8 with a zero point, and biases int32.
        range_of: Range of a tensor that carries a pair.
        readers: Tensor that carries a pair → names of the nodes that read it through the pair.
        convs: Names of the convolutions whose weights are quantised.
    """

    signed: bool
    range_of: Callable[[str], Range]
    readers: dict[str, set[str]] = field(default_factory=dict)
    convs: set[str] = field(default_factory=set)

    def read(self, tensor: str, node: onnx.NodeProto) -> None:
        """Let a node read a tensor through its pair."""
        self.readers.setdefault(tensor, set()).add(node.name)


def plan(graph: Graph, scheme: Scheme, range_of: Callable[[str], Range], float_nodes: Collection[str]) -> Plan:
    """Return what a scheme quantises in a graph.

    A tensor that was zero on every calibration image has no known scale, so what reads it stays in float.
    """
    return (_plan_cpu if scheme == "cpu" else _plan_tensorrt)(graph, range_of, float_nodes)


def float_outputs(graph: Graph, float_nodes: Collection[str]) -> set[str]:
    """Return what is computed in float by the signed scheme whatever the ranges: maps, and the outputs of named nodes."""
    return {
        tensor
        for node in graph.nodes
        if node.name in float_nodes or _makes_map(node, graph)
        for tensor in node.output
        if tensor
    }


def _plan_cpu(graph: Graph, range_of: Callable[[str], Range], float_nodes: Collection[str]) -> Plan:
    consumers = graph.consumers()
    made: set[str] = set()
    alike = _Alike(range_of)
    found = Plan(signed=False, range_of=alike.range_of)
    sums = _normalised_sums(graph, consumers)
    for node in graph.nodes:
        if node.name in float_nodes or node.name in sums:
            continue
        if node.op_type == "Conv":
            inputs = [node.input[0]]
            if not _is_quantisable(node, graph, range_of) or (_makes_map(node, graph) and inputs[0] not in made):
                continue
            found.convs.add(node.name)
        elif node.op_type in _BETWEEN:
            inputs = list(node.input) if node.op_type in ("Concat", "Add") else [node.input[0]]
            if made.isdisjoint(inputs) or not all(_is_known(tensor, graph, range_of) for tensor in inputs):
                continue
            if node.op_type == "Concat" and any(_is_map(tensor, graph) for tensor in inputs):
                continue  # in the one scale of them all, made for the features, a map would have a few steps: SRM's refinements
        else:
            continue
        for tensor in inputs:
            found.read(tensor, node)
        output = node.output[0]
        readers = consumers.get(output, [])
        if len(readers) == 1 and readers[0].op_type == "Relu" and output not in graph.outputs:
            output = readers[0].output[0]  # the ReLU becomes the lower end of the unsigned range
        if _makes_map(node, graph) or output in graph.outputs or not _is_known(output, graph, range_of):
            continue
        if {reader.name for reader in consumers.get(output, [])} <= sums:
            continue
        made.add(output)
        if node.op_type in _SAME_SCALE:
            alike.join([*inputs, output])
        # float readers too: backends fuse a node with its pair only if nothing else reads it
        for reader in consumers.get(output, []):
            found.read(output, reader)
    return found


def _plan_tensorrt(graph: Graph, range_of: Callable[[str], Range], float_nodes: Collection[str]) -> Plan:
    found = Plan(signed=True, range_of=range_of)
    for node in graph.nodes:
        if node.op_type != "Conv" or node.name in float_nodes or _makes_map(node, graph):
            continue
        if _is_quantisable(node, graph, range_of):
            found.convs.add(node.name)
            found.read(node.input[0], node)
    for node in graph.nodes:
        if node.op_type == "Add" and node.name not in float_nodes:
            branch = _residual_branch(node, graph, found)
            if branch is not None and _is_known(branch, graph, range_of):
                found.read(branch, node)
    return found


def _residual_branch(add: onnx.NodeProto, graph: Graph, so_far: Plan) -> str | None:
    """Return the input of an addition to quantise so that it fuses with the convolution that makes the other one."""
    inputs: list[str] = list(add.input)
    from_conv = [_maker(tensor, graph) in so_far.convs for tensor in inputs]
    if sum(from_conv) == 1:
        return inputs[from_conv.index(False)]
    if all(from_conv):  # both fuse; one that a convolution reads carries a pair already
        return next((tensor for tensor in reversed(inputs) if tensor in so_far.readers), None)
    return None


def _maker(tensor: str, graph: Graph) -> str:
    """Return the name of the node that makes a tensor, of the one before where that is a ReLU; empty for inputs."""
    node = graph.producer.get(tensor)
    if node is not None and node.op_type == "Relu":
        node = graph.producer.get(node.input[0])
    return str(node.name) if node is not None else ""


def _is_quantisable(conv: onnx.NodeProto, graph: Graph, range_of: Callable[[str], Range]) -> bool:
    return all(name in graph.constants for name in conv.input[1:]) and _is_known(conv.input[0], graph, range_of)


def _is_known(tensor: str, graph: Graph, range_of: Callable[[str], Range]) -> bool:
    return tensor not in graph.constants and range_of(tensor) != (0.0, 0.0)


def _makes_map(node: onnx.NodeProto, graph: Graph) -> bool:
    if node.op_type != "Conv":
        return False
    output = node.output[0]
    is_blocked = any(reader.op_type == "DepthToSpace" for reader in graph.consumers().get(output, []))
    return is_blocked or _is_map(output, graph)


def _is_map(tensor: str, graph: Graph) -> bool:
    return bool(graph.shapes[tensor][1] <= _MAP_CHANNELS)


def _normalised_sums(graph: Graph, consumers: Mapping[str, Sequence[onnx.NodeProto]]) -> set[str]:
    """Return the names of additions that a normalisation reads: it computes in float, and rounding adds up along the path."""
    return {
        node.name
        for node in graph.nodes
        if node.op_type == "Add" and any(reader.op_type == "BatchNormalization" for reader in consumers.get(node.output[0], []))
    }


class _Alike:
    """Tensors that share one scale, each group with the range that holds all of its members'."""

    def __init__(self, range_of: Callable[[str], Range]) -> None:
        self._range_of = range_of
        self._groups: dict[str, set[str]] = {}

    def join(self, tensors: list[str]) -> None:
        """Give tensors one scale, along with whatever shares one with any of them."""
        group = set[str]().union(*(self._groups.get(tensor, {tensor}) for tensor in tensors))
        for tensor in group:
            self._groups[tensor] = group

    def range_of(self, tensor: str) -> Range:
        lows, highs = zip(*(self._range_of(one) for one in sorted(self._groups.get(tensor, {tensor}))), strict=True)
        return min(lows), max(highs)
