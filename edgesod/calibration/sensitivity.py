"""What each layer costs in accuracy when it alone is quantised: which ones are worth leaving in float."""

from __future__ import annotations

import csv
import hashlib
import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgesod.files import replacing, sha256_of, write_atomically
from edgesod.recipe import RangeMethod
from edgesod.runtime import open_session

from ._graph import Graph
from .images import CalibrationImages
from .journal import Journal
from .qdq import write_qdq
from .schemes import Scheme, plan
from .table import CalibrationTable

_NAMED_IN_PICTURE = 12


@dataclass(frozen=True)
class LayerDrift:
    """What quantising one layer does to the map.

    Attributes:
        layer: Name of the convolution.
        drift: Mean absolute difference to the FP32 map, in [0, 1], averaged over the images.
        worst: The largest of the images' means.
        mac_share: The layer's multiply–accumulates as a share of all convolutions': what leaving it in float costs.
    """

    layer: str
    drift: float
    worst: float
    mac_share: float


def layer_drifts(
    onnx_path: str | Path,
    table: CalibrationTable,
    method: RangeMethod,
    images: CalibrationImages,
    *,
    scheme: Scheme,
    threads: int | None = None,
    keep: Path | None = None,
    on_progress: Callable[[int, int | None], None] = lambda _done, _total: None,
) -> list[LayerDrift]:
    """Quantise one convolution at a time, with what the scheme quantises around it, and compare the maps with FP32.

    Everything runs in ONNX Runtime, which computes both schemes as they are written. A convolution that makes a map is
    quantised only behind another one, never alone, and is left out.

    Args:
        onnx_path: FP32 ONNX with one image input and one map output.
        table: Ranges measured on it.
        method: Which of the table's ranges is used.
        images: What to compare on; eight tell the layers apart.
        scheme: See :mod:`~edgesod.calibration.schemes`.
        threads: CPU threads; every physical core where ``None``.
        keep: A file for the layers that are done. Measuring the same again goes on from there; it stays until the caller, who has
            the result, removes it.
        on_progress: Told ``(done, total)`` layers.

    Returns:
        One record a layer, in the network's order.

    Raises:
        InputError: The ONNX or the images cannot be used, or what is at ``keep``.
        OutputError: ``keep`` cannot be written.
        StaleError: The table lacks a tensor of the network.
    """
    graph = Graph(onnx_path)
    alone = _quantised_alone(graph, table, method, scheme)
    tensors = [tensor for _, tensor in images]
    macs = _macs(graph)
    with tempfile.TemporaryDirectory(prefix="edgesod-") as folder:
        path = Path(folder) / "one.onnx"
        # all layers at once, for the journal alone: the file changes with the code that writes it
        write_qdq(onnx_path, path, table, method, scheme=scheme)
        journal = Journal(keep, _digest(onnx_path, path, table, method, tensors)) if keep is not None else None
        drifts = dict(journal.found) if journal is not None else {}
        reference = _maps(onnx_path, tensors, threads)
        for k, layer in enumerate(alone):
            if layer not in drifts:
                others = [escape(node.name) for node in graph.nodes if node.name != layer]
                write_qdq(onnx_path, path, table, method, scheme=scheme, float_nodes=others)
                pairs = zip(_maps(path, tensors, threads), reference, strict=True)
                drifts[layer] = [float(np.abs(ours - theirs).mean()) for ours, theirs in pairs]
                if journal is not None:
                    journal.add(layer, drifts[layer])
            on_progress(k + 1, len(alone))
    total = sum(macs.values())
    return [LayerDrift(layer, float(np.mean(drifts[layer])), max(drifts[layer]), macs[layer] / total) for layer in alone]


def draw_drifts(drifts: Sequence[LayerDrift], path: str | Path, title: str = "") -> None:
    """Write the drift of every layer as a picture, in the network's order, the largest ones named.

    Raises:
        OutputError: It cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    named = {layer.layer for layer in sorted(drifts, key=lambda layer: -layer.drift)[:_NAMED_IN_PICTURE]}
    colours = ["tab:red" if layer.layer in named else "tab:blue" for layer in drifts]
    axes.bar(range(len(drifts)), [layer.drift for layer in drifts], color=colours)
    axes.set_xticks(
        [k for k, layer in enumerate(drifts) if layer.layer in named],
        [layer.layer for layer in drifts if layer.layer in named],
        rotation=90,  # upright, the names of neighbours do not overlap
        fontsize=7,
    )
    axes.set(ylabel="mean |map − FP32 map|", title=title)
    axes.grid(axis="y", alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def write_drifts(drifts: Sequence[LayerDrift], path: str | Path) -> None:
    """Write drifts as CSV with the columns layer, drift, worst and mac_share, in the network's order.

    Raises:
        OutputError: It cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["layer", "drift", "worst", "mac_share"])
    for layer in drifts:
        writer.writerow([layer.layer, f"{layer.drift:.6g}", f"{layer.worst:.6g}", f"{layer.mac_share:.6g}"])
    write_atomically(path, text.getvalue().encode())


def _quantised_alone(graph: Graph, table: CalibrationTable, method: RangeMethod, scheme: Scheme) -> list[str]:
    names = {node.name for node in graph.nodes}

    def quantised(float_nodes: set[str]) -> set[str]:
        return plan(graph, scheme, lambda tensor: table.range_of(tensor, method), float_nodes).convs

    everything = quantised(set())
    return [node.name for node in graph.nodes if node.name in everything and quantised(names - {node.name})]


def _digest(
    onnx_path: str | Path, int8_path: Path, table: CalibrationTable, method: RangeMethod, tensors: Sequence[NDArray[np.float32]]
) -> str:
    """Return what tells one measurement from another: network, ranges, the INT8 file written of them, and images."""
    digest = hashlib.sha256(" ".join([sha256_of(onnx_path), sha256_of(int8_path), method, table.model_dump_json()]).encode())
    for tensor in tensors:
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def _maps(path: str | Path, tensors: Sequence[NDArray[np.float32]], threads: int | None) -> list[NDArray[np.float32]]:
    with open_session(path, "fp32", "onnxruntime", threads) as session:
        source, target = session.inputs[0].name, session.outputs[0].name
        return [session.run({source: tensor})[target].copy() for tensor in tensors]


def _macs(graph: Graph) -> dict[str, int]:
    """Return each convolution's multiply–accumulates for one image."""
    found = {}
    for node in graph.nodes:
        if node.op_type == "Conv" and node.input[1] in graph.constants:
            # an output pixel takes one product per weight of its channel
            found[node.name] = int(np.prod(graph.shapes[node.output[0]][2:]) * np.prod(graph.constants[node.input[1]].dims))
    return found
