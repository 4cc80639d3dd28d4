"""A torch network as an ONNX file. The only file of edgesod that names torch, and only inside its functions."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgesod.errors import BackendError, InputError
from edgesod.files import replacing

if TYPE_CHECKING:
    from torch import nn

    Module: TypeAlias = nn.Module

FloatT = TypeVar("FloatT", np.float32, np.float64)

log = logging.getLogger("edgesod.export")

OPSET = 17
"""The newest that TensorRT 8.5 and 8.6 parse."""
IR_VERSION = 8
"""The one that belongs to opset 17; torch's newer exporter writes 10."""


def export_onnx(
    module: Module, size_hw: tuple[int, int], path: str | Path, *, output_name: str = "saliency", input_name: str = "image"
) -> None:
    """Write a network as an ONNX file of opset 17 with a fixed shape and batch size 1.

    Args:
        module: Takes float ``(1, 3, H, W)`` and returns a list of logit maps ``(1, 1, H, W)``. The first one goes through
            a sigmoid and is exported; an attribute ``export_index: int`` names another. A network with other heads, softmax
            for one, has a method ``saliency(outputs) -> Tensor`` instead, which returns the map in [0, 1].
        size_hw: Height and width of the input in pixels.
        path: The ONNX file.
        output_name: Name of the map in the file.
        input_name: Name of the image tensor in the file.

    Raises:
        InputError: The network does not run at ``size_hw``.
        BackendError: This torch has no exporter that works here, or it wrote another opset.
        OutputError: The file cannot be written.
    """
    import onnx
    import torch

    names: dict[str, Any] = {"input_names": [input_name], "output_names": [output_name], "opset_version": OPSET}
    example = torch.zeros(1, 3, *size_hw, device=_device(module))
    with _inference(module, size_hw) as network, replacing(path) as temporary, warnings.catch_warnings():
        # The legacy exporter announces its own end, in two places; the other one uses what torch itself deprecated.
        warnings.filterwarnings("ignore", message=".*legacy TorchScript-based ONNX export", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="The feature will be removed", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        try:
            torch.onnx.export(network, (example,), str(temporary), dynamo=False, **names)
        except (ImportError, TypeError) as error:
            log.info("torch %s has no legacy exporter (%s), using torch.export", torch.__version__, error)
            _export_by_dynamo(network, example, temporary, names)
        model = onnx.load(temporary)
        opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        if opset != OPSET:
            raise BackendError(
                f"torch {torch.__version__} wrote opset {opset} where {OPSET} was asked for", hint="use torch 2.13"
            )
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model)
        onnx.save(model, temporary)


def run_torch(module: Module, image_NCHW: NDArray[FloatT]) -> NDArray[FloatT]:
    """Return the map that :func:`export_onnx` would export, ``(1, 1, H, W)`` in [0, 1], for one input tensor of its dtype.

    Raises:
        InputError: The network does not run at this size.
    """
    import torch

    height, width = image_NCHW.shape[-2:]
    with _inference(module, (height, width)) as network:
        saliency: NDArray[FloatT] = network(torch.from_numpy(image_NCHW).to(_device(module))).cpu().numpy()
    return saliency


def rounding_of(module: Module, image_NCHW: NDArray[np.float32]) -> float:
    """Return how far torch's FP32 map of an image is from its FP64 one: the largest absolute difference."""
    exact = run_torch(copy.deepcopy(module).cpu().double(), image_NCHW.astype(np.float64))
    return float(np.abs(run_torch(module, image_NCHW) - exact).max())


@contextmanager
def _inference(module: Module, size_hw: tuple[int, int]) -> Iterator[Module]:
    """Yield the network with its exported map as only output, in eval mode; the training flags come back after.

    What the network or the exporter refuses within the block is raised as InputError.
    """
    import torch

    class Inference(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network: Any = module

        def forward(self, image_NCHW: torch.Tensor) -> Any:
            outputs = self.network(image_NCHW)
            if hasattr(self.network, "saliency"):
                return self.network.saliency(outputs)
            return torch.sigmoid(outputs[getattr(self.network, "export_index", 0)])

    was_training = {part: part.training for part in module.modules()}
    try:
        with torch.no_grad():
            yield Inference().eval()
    except (ValueError, RuntimeError) as error:
        what = f"the network cannot be run or exported at {size_hw[0]}×{size_hw[1]}"
        raise InputError(f"{what}: {str(error).splitlines()[0]}") from error
    finally:
        for part, training in was_training.items():
            part.training = training


def _export_by_dynamo(network: Module, example: Any, path: Path, names: dict[str, Any]) -> None:
    import torch

    try:
        torch.onnx.export(network, (example,), str(path), external_data=False, verbose=False, **names)
    except ImportError as error:
        raise BackendError(
            f"torch's exporter needs a package that is not here: {error}", hint="pip install onnxscript"
        ) from error


def _device(module: Module) -> Any:
    return next(module.parameters()).device
