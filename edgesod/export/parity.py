"""Compare an exported network with torch on the same tensor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray

from edgesod.errors import CheckFailed

TOLERANCE = 1e-5
"""Largest difference of a map in [0, 1]; FP32 summed in another order gives some 2e-6 on these networks once they are trained."""
LARGEST_TOLERANCE = 1 / 255
"""A grey level of the map: what passes at most, however coarsely FP32 computes a network."""


@dataclass(frozen=True)
class ParityReport:
    """Largest absolute difference of each file's map to torch's."""

    onnx: float
    simplified: float

    @property
    def largest(self) -> float:
        """The larger of the two."""
        return max(self.onnx, self.simplified)


def check_parity(
    expected: NDArray[np.float32],
    onnx: str | Path,
    simplified: str | Path,
    sample_NCHW: NDArray[np.float32],
    *,
    tolerance: float = TOLERANCE,
) -> ParityReport:
    """Run two ONNX files in ONNX Runtime and compare each map with torch's.

    Args:
        expected: float32 ``(1, 1, H, W)``, torch's map of the sample.
        onnx: The file torch wrote.
        simplified: The file onnxsim wrote.
        sample_NCHW: float32 ``(1, 3, H, W)``, what both run on.
        tolerance: Largest absolute difference that passes.

    Raises:
        CheckFailed: A difference is above ``tolerance`` or not finite.
    """
    differences = {}
    for stage, path in {"exported": onnx, "simplified": simplified}.items():
        difference = float(np.abs(_run(path, sample_NCHW) - expected).max())
        if not difference <= tolerance:
            raise CheckFailed(
                f"the {stage} ONNX differs from torch by {difference:.1e} (bound {tolerance:g})",
                hint="look for an operator that torch exports in another way than it computes it",
            )
        differences[stage] = difference
    return ParityReport(differences["exported"], differences["simplified"])


def _run(path: str | Path, sample_NCHW: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    output: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: sample_NCHW})[0]
    return output
