"""The range of every activation tensor, from one streaming pass in bounded memory.

Every value of every tensor counts: nothing is sub-sampled. Minimum and maximum are exact; percentiles come from histograms of
8192 bins whose range doubles when a larger value arrives, so they are exact to 1/2048 of the largest magnitude or better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray

from edgesod.errors import CheckFailed, InputError
from edgesod.recipe import RangeMethod
from edgesod.threads import resolve_threads

from ._graph import Graph
from .clipping import least_divergence, least_squared_error
from .images import CalibrationImages
from .table import Range

_PERCENTILES: dict[RangeMethod, float] = {
    "percentile-99.9": 99.9,
    "percentile-99.99": 99.99,
    "percentile-99.999": 99.999,
}
_BINS = 8192
_GROUP_BYTES = 640 << 20
"""Activations held at a time: all of U²-NetP's at 320² (604 MB), half of BASNet's at 256²."""


def activation_ranges(
    onnx_path: str | Path,
    images: CalibrationImages,
    on_progress: Callable[[int, int | None], None] | None = None,
    *,
    group_bytes: int = _GROUP_BYTES,
    threads: int | None = None,
) -> dict[str, dict[RangeMethod, Range]]:
    """Return, per float tensor, input and output included, its range over all images by each method.

    The tensors are exposed in groups, and the images go through once per group, so memory holds the activations of one
    group and one image.

    Args:
        onnx_path: FP32 ONNX with one image input.
        images: What to run on.
        on_progress: Told ``(done, total)``, counting an image once per group.
        group_bytes: Size of a group.
        threads: CPU threads; every physical core where ``None``.

    Raises:
        InputError: The ONNX cannot be used, does not take these tensors, or no image can be decoded.
        CheckFailed: A tensor holds a value that is not finite.
    """
    graph = Graph(onnx_path)
    source = graph.model.graph.input[0].name
    groups = list(_groups(graph, source, group_bytes))
    found = {name: Spread() for name in graph.float_tensors}
    done, total = 0, len(groups) * len(images)
    for k, group in enumerate(groups):
        session = _exposing(graph, group, threads)
        for name, tensor in images:
            if k == 0:
                found[source].add(tensor)
            try:
                values = session.run_with_ort_values(group, {source: onnxruntime.OrtValue.ortvalue_from_numpy(tensor)})
            except onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument as error:
                raise InputError(f"{onnx_path} does not take an input {tensor.shape}: {error}") from error
            for k_activation, activation in enumerate(group):
                if not found[activation].add(values[k_activation].numpy()):
                    raise CheckFailed(f"the tensor {activation!r} holds values that are not finite on the image {name}")
            del values  # before the next run makes its own
            done += 1
            if on_progress is not None:
                on_progress(done, total)
    return {name: spread.ranges() for name, spread in found.items()}


class Spread:
    """Minimum, maximum and histogram of the values seen so far."""

    def __init__(self) -> None:
        self.lowest, self.highest = np.inf, -np.inf
        self._reach = 0.0
        self._counts = np.zeros(_BINS, np.int64)

    def add(self, values: NDArray[np.float32]) -> bool:
        """Count values; return whether all of them are finite, and count none if not."""
        low, high = float(values.min()), float(values.max())
        if not np.isfinite(low + high):
            return False
        self.lowest, self.highest = min(self.lowest, low), max(self.highest, high)
        self._widen(max(-low, high))
        if self._reach:
            flat = np.ascontiguousarray(values).reshape(1, -1)
            counts = cv2.calcHist([flat], [0], None, [_BINS], [-self._reach, self._reach])
            self._counts += counts.ravel().astype(np.int64)
        return True

    def ranges(self) -> dict[RangeMethod, Range]:
        """Return the range by each method."""
        minmax = (_short(self.lowest), _short(self.highest))
        found: dict[RangeMethod, Range] = {"minmax": minmax}
        cumulative = np.cumsum(self._counts)
        edges = np.linspace(-self._reach, self._reach, _BINS + 1)
        if not self._reach:
            return dict.fromkeys(get_args(RangeMethod), minmax)
        for method, percent in _PERCENTILES.items():
            beyond = cumulative[-1] * (100 - percent) / 200
            low = edges[np.searchsorted(cumulative, beyond, side="right")]
            high = edges[np.searchsorted(cumulative, cumulative[-1] - beyond, side="left") + 1]
            found[method] = self._within(low, high)
        whole = (self.lowest, self.highest)
        for signed, suffix in ((False, ""), (True, "-signed")):
            for name, choose in (("mse", least_squared_error), ("entropy", least_divergence)):
                found[name + suffix] = self._within(*choose(self._counts, edges, whole, signed=signed))  # type: ignore[index]
        return found

    def _within(self, low: float, high: float) -> Range:
        return _short(max(low, self.lowest)), _short(min(high, self.highest))

    def _widen(self, magnitude: float) -> None:
        if not self._reach:
            self._reach = magnitude * 1.0001  # bins are open at their upper end
        while magnitude >= self._reach > 0:
            pairs = self._counts.reshape(-1, 2).sum(1)
            self._counts[:] = 0
            self._counts[_BINS // 4 : 3 * _BINS // 4] = pairs
            self._reach *= 2


def _groups(graph: Graph, source: str, group_bytes: int) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for name in graph.float_tensors:
        if name == source:
            continue
        if name not in graph.shapes:
            raise InputError(f"the tensor {name!r} has no fixed shape", hint="export at a fixed shape with `edgesod export`")
        bytes_here = 4 * int(np.prod(graph.shapes[name]))
        if group and size + bytes_here > group_bytes:
            yield group
            group, size = [], 0
        group.append(name)
        size += bytes_here
    yield group


def _exposing(graph: Graph, names: Iterable[str], threads: int | None) -> onnxruntime.InferenceSession:
    """Return a session of the part of the graph that leads to some tensors, with these as its outputs."""
    wanted, nodes = set(names), []
    outputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names]
    for node in reversed(graph.nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            nodes.append(node)
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.node[:], model.graph.output[:]
    model.graph.node.extend(reversed(nodes))
    model.graph.output.extend(outputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = resolve_threads(threads)
    # each of these three would hold a second copy of the activations: no faster here, twice the memory
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _short(value: float) -> float:
    """Round to what a JSON file needs: one part in a million."""
    return float(f"{value:.7g}")
