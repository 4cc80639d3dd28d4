"""Results of ``scripts/gpu_suite.py``: the file it keeps them in, and the table that is made of it."""

from __future__ import annotations

import platform
from typing import Any

from edgesod.manifest import Gpu, versions_here
from edgesod.timing import PAPER_FIGURES

SUFFIX = ".json"

_REHEARSAL = (
    "REHEARSAL on a simulated GPU with a fake TensorRT: nothing here was measured. Times are made up, and accuracy is "
    "that of ONNX Runtime on a CPU."
)
_PACKAGES = ("edgesod", "tensorrt", "cuda-bindings", "pycuda", "numpy", "onnx", "onnxruntime", "opencv-python-headless")


def new_results(gpu: Gpu, tensorrt: str, provider: str, *, is_rehearsal: bool) -> dict[str, Any]:
    """Return results with nothing in them yet.

    Args:
        gpu: What it runs on.
        tensorrt: ``tensorrt.__version__``.
        provider: Name of the CUDA provider.
        is_rehearsal: Whether all of that is simulated.
    """
    return {
        "schema_version": 1,
        "kind": "rehearsal" if is_rehearsal else "measurement",
        "notice": _REHEARSAL if is_rehearsal else "",
        "gpu": gpu.model_dump(mode="json"),
        "tensorrt": tensorrt,
        "cuda_provider": provider,
        "python": platform.python_version(),
        "versions": versions_here(*_PACKAGES),
        "work": {},
        "engines": {},
        "torch": {},
    }


def results_table(results: dict[str, Any]) -> str:
    """Return results as Markdown; a rehearsal's says so in its title and in every row."""
    is_rehearsal = results["kind"] == "rehearsal"
    fps = ", ".join(f"{figure.fps:g} fps of {figure.model} ({figure.size}²)" for figure in PAPER_FIGURES)
    ratios = " | ".join(f"÷ {figure.fps:g} fps" for figure in PAPER_FIGURES)
    title = f"{results['gpu']['name']}, TensorRT {results['tensorrt']}, CUDA by {results['cuda_provider']}"
    lines = [
        f"# REHEARSAL, not a measurement: {title}" if is_rehearsal else f"# {title}",
        "",
        *([f"**{results['notice']}**", ""] if is_rehearsal else []),
        f"| what | gate: maps differ, IoU | GPU ms p50 (p99), graph | no graph | fps | {ratios} | floor ms | × floor |",
        f"|---|---|---|---|---|{'---|' * len(PAPER_FIGURES)}---|---|",
    ]
    for name, found in results["engines"].items():
        lines.append(_row(name, _engine_cells(found), is_rehearsal=is_rehearsal))
    for name, found in results["torch"].items():
        lines.append(_row(f"{name}, torch on {found.get('device', '?')}", _torch_cells(found), is_rehearsal=is_rehearsal))
    lines += [
        "",
        f"fps: the network alone, p50, copies to the GPU and back included (torch: without), with a CUDA graph; beside it the "
        f"papers' {fps} on a GTX 1080 Ti in FP32. Floor: arithmetic or traffic at the datasheet's rates, whichever takes longer; a "
        "cache that holds the activations can beat the traffic's part.",
    ]
    if any("random" in found.get("weights", "") for found in results["engines"].values()):
        lines.append("BASNet and U²-Net have random weights here: their speed means something, their gate does not.")
    return "\n".join(lines)


def _row(name: str, cells: list[str], *, is_rehearsal: bool) -> str:
    return f"| {'REHEARSAL ' if is_rehearsal else ''}{name} | {' | '.join(cells)} |"


def _engine_cells(found: dict[str, Any]) -> list[str]:
    if "failed" in found:
        return _failed(found)
    graph, plain = found["with_graph"], found["without_graph"]
    compute = graph["stages_ms"]["compute"]
    ms = f"{compute['p50']:.3f} ({compute['p99']:.3f})" + (f": {graph['graph_reason']}" if graph["graph_reason"] else "")
    gate = found["gate"]
    accuracy = f"{gate['map_mae']:.4f}, {gate['mask_iou']:.3f}"
    if gate["max_f_drift"] is not None:
        accuracy += f", max-F drift {gate['max_f_drift']:.4f}"
    fps = 1e3 / graph["stages_ms"]["inference"]["p50"]
    limits = ["–", "–"]
    if "floor" in found:
        least = max(found["floor"].values())
        limits = [f"{least:.3f}", f"{compute['p50'] / least:.1f}"]
    return [accuracy, ms, f"{plain['stages_ms']['compute']['p50']:.3f}", *_fps(fps), *limits]


def _torch_cells(found: dict[str, Any]) -> list[str]:
    if "failed" in found:
        return _failed(found)
    ms = found["compute_ms"]
    return ["–", f"{ms['p50']:.3f} ({ms['p99']:.3f})", "–", *_fps(1e3 / ms["p50"]), "–", "–"]


def _fps(fps: float) -> list[str]:
    return [f"{fps:.0f}", *(f"{fps / figure.fps:.1f}" for figure in PAPER_FIGURES)]


def _failed(found: dict[str, Any]) -> list[str]:
    return [f"failed: {found['failed']}".replace("|", "/"), *[""] * (5 + len(PAPER_FIGURES))]
