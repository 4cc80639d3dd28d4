"""Export a network: torch → ONNX → simplified ONNX, each compared with torch before the file is put in place."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgesod.errors import CheckFailed, InputError
from edgesod.files import write_atomically

if TYPE_CHECKING:
    from .parity import ParityReport
    from .torch_export import Module

log = logging.getLogger("edgesod.export")


def export_model(
    module: Module, size_hw: tuple[int, int], target: str | Path, sample_NCHW: NDArray[np.float32]
) -> ParityReport:
    """Write a network as a simplified FP32 ONNX of fixed shape, after comparing it with torch.

    Args:
        module: A network as :func:`~edgesod.export.torch_export.export_onnx` takes it.
        size_hw: Height and width of the input in pixels.
        target: The ONNX file. It is opset 17, IR version 8, with the input ``image`` ``(1, 3, H, W)`` and the output
            ``saliency`` ``(1, 1, H, W)`` in [0, 1].
        sample_NCHW: float32 ``(1, 3, H, W)``, a preprocessed photograph to compare on. Noise would not do: it saturates
            the sigmoid, and everything then agrees.

    Returns:
        The largest differences to torch.

    Raises:
        InputError: The network does not run at ``size_hw``, or the sample has another size.
        CheckFailed: The ONNX differs from torch by more than 1e-5, and by more than twice torch's own rounding or a grey
            level (1/255); nothing is written.
        BackendError: This torch has no exporter that works here.
        OutputError: The file cannot be written.
    """
    # imported here: torch, onnxsim and ONNX Runtime cost seconds that `edgesod --help` has no use for
    from .parity import LARGEST_TOLERANCE, TOLERANCE, check_parity
    from .simplify import simplify_onnx
    from .torch_export import export_onnx, rounding_of, run_torch

    if sample_NCHW.shape != (1, 3, *size_hw):
        raise InputError(
            f"the sample has shape {sample_NCHW.shape}, the network is exported for (1, 3, {size_hw[0]}, {size_hw[1]})"
        )
    expected = run_torch(module, sample_NCHW)
    with tempfile.TemporaryDirectory(prefix="edgesod-export-") as folder:
        plain, simplified = Path(folder) / "plain.onnx", Path(folder) / "simplified.onnx"
        export_onnx(module, size_hw, plain)
        simplify_onnx(plain, simplified)
        try:
            report = check_parity(expected, plain, simplified, sample_NCHW)
        except CheckFailed:
            # FP32 itself is off by more where a network, hardly trained for one, holds large numbers; what it is off by here and
            # in another order of adding may add up
            rounding = rounding_of(module, sample_NCHW)
            tolerance = min(2 * rounding, LARGEST_TOLERANCE)
            if not tolerance > TOLERANCE:
                raise
            report = check_parity(expected, plain, simplified, sample_NCHW, tolerance=tolerance)
            log.warning("%s: torch's own FP32 is %.1e from its FP64, so %.1e is let pass", target, rounding, tolerance)
        write_atomically(target, simplified.read_bytes())
    log.info("%s: at most %.1e from torch", target, report.largest)
    return report
