"""Whether FP16 can hold what every layer was seen to compute, so that an engine cannot overflow unnoticed."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path

import numpy as np

from edgesod.files import write_atomically

from ._graph import Graph
from .table import CalibrationTable

LARGEST = float(np.finfo(np.float16).max)
"""65504: the next larger value is infinite in FP16."""
MARGIN = 8.0
"""How much larger than on the calibration images a value may get on others, and a partial sum within a convolution."""


@dataclass(frozen=True)
class Headroom:
    """How near a layer comes to the end of FP16.

    Attributes:
        layer: Name of the node.
        op_type: Its operator.
        largest: Largest magnitude of its float inputs and outputs over all calibration images.
    """

    layer: str
    op_type: str
    largest: float

    @property
    def factor(self) -> float:
        """By how much the largest value may grow before it overflows; infinite where there was none but zero."""
        return LARGEST / self.largest if self.largest else float("inf")

    @property
    def fits(self) -> bool:
        """Whether FP16 may compute the layer: there is room for :data:`MARGIN`."""
        return self.factor >= MARGIN

    @property
    def verdict(self) -> str:
        """One of ``fits``, ``stays FP32: near the end`` and ``stays FP32: overflows``."""
        return "fits" if self.fits else f"stays FP32: {'near the end' if self.factor >= 1 else 'overflows'}"


def headroom(onnx_path: str | Path, table: CalibrationTable) -> list[Headroom]:
    """Return every layer of a network that computes floats, in the network's order.

    Args:
        onnx_path: The FP32 ONNX that ``table`` was measured on.
        table: Its calibration table.

    Raises:
        InputError: The ONNX cannot be used.
        StaleError: The table lacks a tensor of the network.
    """
    graph = Graph(onnx_path)
    floats = set(graph.float_tensors)
    found = []
    for node in graph.nodes:
        tensors = [name for name in (*node.input, *node.output) if name in floats]
        if tensors:
            ranges = [table.range_of(name, "minmax") for name in tensors]
            found.append(Headroom(node.name, node.op_type, max(max(abs(low), abs(high)) for low, high in ranges)))
    return found


def without_headroom(onnx_path: str | Path, table: CalibrationTable) -> tuple[str, ...]:
    """Return patterns for the layers that have to stay in FP32, as ``write_fp16`` takes them; errors of :func:`headroom`."""
    return tuple(escape(layer.layer) for layer in headroom(onnx_path, table) if not layer.fits)


def write_headroom(layers: Sequence[Headroom], path: str | Path) -> None:
    """Write a report as CSV with the columns layer, op, largest, factor and verdict.

    Raises:
        OutputError: It cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["layer", "op", "largest", "factor", "verdict"])
    for layer in layers:
        writer.writerow([layer.layer, layer.op_type, f"{layer.largest:.6g}", f"{layer.factor:.6g}", layer.verdict])
    write_atomically(path, text.getvalue().encode())
