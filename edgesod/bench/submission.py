"""One measurement as a file to hand in: what ran, on which board, how fast, how faithful. Nothing about a person or a place."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

from edgesod.files import write_atomically
from edgesod.manifest import Manifest, versions_here
from edgesod.runtime import Runtime

from .board import Board
from .measure import BenchReport

WHERE_TO = (
    "add it to docs/results/boards/ in a pull request, or attach it to an issue; docs/jetson.md has the table it goes into"
)


def write_submission(path: str | Path, runtime: Runtime, report: BenchReport, board: Board, manifest: Manifest | None) -> None:
    """Write a measurement as one JSON object.

    Args:
        path: The file.
        runtime: What was measured.
        report: What :func:`~edgesod.bench.bench` returned.
        board: Where.
        manifest: Of the engine, which knows its gate and how TensorRT built it; ``None`` for a shipped ONNX run as it is.

    Raises:
        OutputError: The file cannot be written.
    """
    measured = report.as_dict(runtime)
    gpu = build = gate = None
    if manifest is not None:
        gate = manifest.gate.model_dump(mode="json", exclude={"images", "latency_ms", "fp32_latency_ms", "warnings"})
        gate["has_ground_truth"] = manifest.gate.mae is not None
        if manifest.tensorrt is not None:
            build = manifest.tensorrt.model_dump(mode="json")
            gpu = build.pop("gpu")
    value = {
        "schema_version": 1,
        "kind": "board",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "board": board.as_dict(),
        "gpu": gpu,
        "tensorrt": build,
        **measured,
        "warnings": [*report.warnings, *board.warnings],
        "gate": gate,
        "cuda_packages": versions_here("cuda-bindings", "cuda-python", "pycuda"),
    }
    write_atomically(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())
