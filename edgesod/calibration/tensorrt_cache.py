"""TensorRT's calibration cache: a scale per tensor as text, what implicit INT8 (TensorRT 8.5 to 10.x, and DLA) builds from.

The first line names TensorRT's version and the algorithm, ``TRT-8503-EntropyCalibration2``; each further line a tensor and
its scale, the bits of a big-endian float32 in hexadecimal: ``image: 3c008912``. TensorRT refuses a cache whose first line is
of another version. Compared with caches that users of TensorRT 7.1 to 10.3 have published.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from edgesod.errors import InputError
from edgesod.recipe import RangeMethod

from ._graph import Graph
from .qdq import symmetric_scale
from .schemes import float_outputs
from .table import CalibrationTable

Algorithm = Literal["EntropyCalibration2", "MinMaxCalibration"]
SUFFIX = ".cache"


def cache_of_table(
    table: CalibrationTable, method: RangeMethod, algorithm: Algorithm, version: str, without: Collection[str] = ()
) -> bytes:
    """Return the cache that makes TensorRT quantise tensors as the signed Q/DQ scheme would.

    Args:
        table: Ranges of the network.
        method: Which of them is used.
        algorithm: The calibrator's that will hand it to TensorRT; the scales are the same for each.
        version: ``tensorrt.__version__``.
        without: Tensors to leave out, which TensorRT then keeps in float.
    """
    names = [name for name in table.ranges if name not in without]
    return format_cache({name: symmetric_scale(table.range_of(name, method)) for name in names}, algorithm, version)


def float_tensors(source_onnx: str | Path, float_nodes: Sequence[str]) -> set[str]:
    """Return the tensors that the Q/DQ files compute in float: maps, and what nodes make that match a shell pattern.

    Raises:
        InputError: ``source_onnx`` cannot be used, or a pattern matches no node.
    """
    graph = Graph(source_onnx)
    return float_outputs(graph, graph.matching(float_nodes))


def format_cache(scales: dict[str, float], algorithm: Algorithm, version: str) -> bytes:
    """Return a cache that holds some scales."""
    lines = [_header(algorithm, version), *(f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in scales.items())]
    return ("\n".join(lines) + "\n").encode()


def read_cache(path: str | Path) -> dict[str, float]:
    """Return the scales that a cache holds, by tensor; of which version and algorithm it is does not matter.

    Raises:
        InputError: It cannot be read, is not a calibration cache, or has a scale that is no positive number.
    """
    try:
        first, *lines = Path(path).read_text(encoding="utf-8").splitlines() or [""]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the calibration cache {path} cannot be read: {error}") from error
    scales: dict[str, float] = {}
    for line in filter(None, lines):
        name, _, digits = line.rpartition(": ")
        try:
            (scales[name],) = struct.unpack(">f", bytes.fromhex(digits))
        except (ValueError, struct.error):
            raise InputError(f"{path} is not a calibration cache of TensorRT: it has the line {line[:80]!r}") from None
        if not 0 < scales[name] < float("inf"):
            raise InputError(f"the calibration cache {path} gives {name!r} the scale {scales[name]}")
    if not first.startswith("TRT-") or not scales:
        raise InputError(
            f"{path} is not a calibration cache of TensorRT: it begins with {first[:80]!r}",
            hint="give --calib a folder of images, or a table from `edgesod calibrate`",
        )
    return scales


def _header(algorithm: Algorithm, version: str) -> str:
    major, minor, patch = (int(part) for part in version.split(".")[:3])
    thousand = 10_000 if major >= 10 else 1_000  # NV_TENSORRT_VERSION counts minor versions in hundreds
    return f"TRT-{major * thousand + minor * 100 + patch}-{algorithm}"
