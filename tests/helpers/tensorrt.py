"""Engines for the fake TensorRT, as files and as folders, without building them."""

from __future__ import annotations

import gc
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgesod.files import sha256_of
from edgesod.manifest import TensorRtBuild, read_manifest
from edgesod.runtime.cuda import memory
from tests.contract.fake.plan import Layer, Plan
from tests.contract.machine import Machine
from tests.helpers.engines import INPUT, make_engine, run_tiny, write_tiny

NEWEST = pytest.mark.parametrize("tensorrt_version", ["11.4.0.106"])
NOTHING = {"buffers": 0, "streams": 0, "events": 0, "graphs": 0, "contexts": 0}
"""What is alive on a simulated GPU that nobody uses."""


def left_of(machine: Machine) -> dict[str, int]:
    """Count TensorRT's objects that are still there, but for the logger, of which a process has one that stays."""
    return {name: n for name, n in machine.alive.items() if n and name != "ILogger"}


def nothing_lives(machine: Machine) -> bool:
    """Say whether the simulated GPU and TensorRT are as they were before anything was done with them."""
    gc.collect()
    return memory.driver().live() == NOTHING and left_of(machine) == {}


def feed(seed: int = 0) -> np.ndarray:
    """Return an input of the tiny network."""
    return np.random.default_rng(seed).normal(0, 1, INPUT.shape).astype(np.float32)


def assert_right(found: np.ndarray, image: np.ndarray) -> None:
    """Compare a map with NumPy's of the same input."""
    np.testing.assert_allclose(found, run_tiny(image), atol=1e-5)


def write_plan(path: Path, tensorrt: ModuleType, *, onnx: Path | None = None, **facts: Any) -> Path:
    """Write what the fake ``tensorrt`` would have built of the tiny network, or of ``onnx``, on its machine."""
    if onnx is None:
        onnx = write_tiny(path.with_suffix(".onnx"))
    machine = tensorrt._fake.machine
    plan = {
        "version": tensorrt.__version__,
        "gpu": machine.gpu,
        "compute_capability": machine.compute_capability,
        "is_version_compatible": False,
        "compatibility": "NONE",
        "verbosity": 2,
        "name": "tiny",
        "outputs": ["saliency"],
        "profiles": [],
        "layers": [
            Layer("conv", "Conv", "FP32", ["image"], ["logits"]),
            Layer("sigmoid", "Sigmoid", "FP32", ["logits"], ["saliency"]),
        ],
        "onnx": onnx.read_bytes(),
    }
    path.write_bytes(Plan(**(plan | facts)).pack())
    return path


def make_tensorrt_engine(folder: Path, tensorrt: ModuleType, *, plan: dict[str, Any] | None = None, **build: Any) -> Path:
    """Write an engine folder of the tiny network; ``plan`` goes into the plan, ``build`` into the manifest's record of it."""
    make_engine(folder, backend="tensorrt")
    path = write_plan(folder / "engine.plan", tensorrt, onnx=folder / "model.onnx", **(plan or {}))
    facts = {"version": tensorrt.__version__, "gpu": memory.GPU, "typing": "weak", "layers": {"fp32": 2}}
    manifest = read_manifest(folder)
    manifest.model_copy(
        update={
            "engine_file": path.name,
            "sha256": manifest.sha256 | {path.name: sha256_of(path)},
            "tensorrt": TensorRtBuild(**(facts | build)),
        }
    ).write(folder)
    return folder
