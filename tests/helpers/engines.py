"""Tiny networks as ONNX files and as engine folders."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgesod.files import sha256_of
from edgesod.manifest import REVISION, GateReport, Manifest, this_device
from edgesod.recipe import Recipe
from edgesod.types import TensorSpec

SIZE_HW = (32, 48)
RECIPE = Recipe(model="tiny", size_hw=SIZE_HW, precision="fp32")
INPUT, OUTPUT = TensorSpec("image", (1, 3, *SIZE_HW), "float32"), TensorSpec("saliency", (1, 1, *SIZE_HW), "float32")


def tiny_weights() -> NDArray[np.float32]:
    """Return the 3×3 kernel of :func:`write_tiny`, float32 ``(1, 3, 3, 3)``."""
    return np.random.default_rng(0).normal(0, 0.4, (1, 3, 3, 3)).astype(np.float32)


def write_tiny(
    path: Path,
    size_hw: tuple[int | str, int | str] = SIZE_HW,
    *,
    input_name: str = "image",
    outputs: int = 1,
    channels: int = 1,
) -> Path:
    """Write ``sigmoid(conv3x3(image))`` as ONNX; with more ``outputs``, the same again under other names."""
    weights = np.repeat(tiny_weights(), channels, 0)
    names = ["saliency", *(f"side{k}" for k in range(1, outputs))]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", [input_name, "kernel"], ["logits"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            *(helper.make_node("Sigmoid", ["logits"], [name]) for name in names),
        ],
        "tiny",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, [1, 3, *size_hw])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, *size_hw]) for name in names],
        [numpy_helper.from_array(weights, "kernel")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def run_tiny(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what :func:`write_tiny` computes, by way of NumPy alone; float32 in and out, ``(1, C, h, w)``."""
    padded = np.pad(image[0], ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    logits = np.einsum("chwyx,cyx->hw", windows, tiny_weights()[0], dtype=np.float64)
    return (1 / (1 + np.exp(-logits)))[None, None].astype(np.float32)


def make_engine(folder: Path, recipe: Recipe = RECIPE, *, backend: str = "onnxruntime", **changes: object) -> Path:
    """Write an engine folder of :func:`write_tiny`; ``changes`` go into its manifest."""
    folder.mkdir(parents=True)
    hash_ = sha256_of(write_tiny(folder / "model.onnx", recipe.size_hw))
    gate = GateReport(images="none", n=1, map_mae=0, mask_iou=1, latency_ms=1, fp32_latency_ms=1, speedup=1)
    manifest = Manifest(
        revision=REVISION,
        recipe=recipe,
        backend=backend,
        engine_file="model.onnx",
        onnx_file="model.onnx",
        sha256={"model.onnx": hash_},
        device=this_device(),
        versions={},
        inputs=(TensorSpec(name="image", shape=(1, 3, *recipe.size_hw), dtype="float32"),),
        outputs=(TensorSpec(name="saliency", shape=(1, 1, *recipe.size_hw), dtype="float32"),),
        gate=gate,
        created="2026-01-01T00:00:00+00:00",
    )
    manifest.model_copy(update=changes).write(folder)
    return folder


def export_u2netp(path: Path, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """Export a U²-NetP whose maps of ``batch``, float32 ``(N, 3, h, w)``, fill [0, 1]; return torch's map of its first."""
    import torch

    from trainer import networks

    class Saliency(torch.nn.Module):
        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(self.network(image)[0])

    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a network gains nothing from more, and loses much on a busy machine
    network = networks.create("u2netp")
    images = torch.from_numpy(batch)
    with torch.no_grad():
        network.train()
        network(images)  # gives batch normalisation some statistics
        network.eval()
        logits = network(images)[0]
        scale = 3 / logits.std()  # an untrained network's map is nearly flat, and would agree with anything
        network.outconv.weight *= scale
        network.outconv.bias.copy_((network.outconv.bias - logits.mean()) * scale)
        saliency = Saliency(network).eval()
        expected = saliency(images[:1]).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that still works everywhere is called legacy
        torch.onnx.export(
            saliency,
            (images[:1],),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["image"],
            output_names=["saliency"],
        )
    torch.set_num_threads(threads)
    return expected
