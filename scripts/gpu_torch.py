"""The part of gpu_suite.py that needs torch, for a Python that has it: it may be another one than TensorRT's.

    python scripts/gpu_torch.py '{"do": "export", "network": "basnet", "size": [256, 256], "seed": 0, "weights": null,
                                  "sample": "sample.npy", "onnx": "basnet-256.onnx"}'
    python scripts/gpu_torch.py '{"do": "time", …, "modes": ["eager fp32", "compile fp16"], "seconds": 3, "iterations": 10,
                                  "warm_up_ms": 200}'

One JSON object on the command line, one JSON object a line on stdout. Needs torch, OpenCV, pydantic and safetensors, and the checkout
on PYTHONPATH; no ONNX package but for the export, where torch itself asks for one.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgesod.timing import LatencySummary
from trainer import networks


class Saliency(nn.Module):
    """A network with its fused map as only output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_NCHW: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.network(image_NCHW)[0])


def main() -> None:
    """Do what the command line says."""
    task = json.loads(sys.argv[1])
    network = make(task)
    if task["do"] == "export":
        from edgesod.export.torch_export import export_onnx

        export_onnx(network, tuple(task["size"]), task["onnx"])
        answer(onnx=task["onnx"], torch=torch.__version__)
        return
    image = torch.from_numpy(np.load(task["sample"])[:1]).to(device())
    for mode in task["modes"]:
        try:
            answer(mode=mode, **measure(Saliency(network), image, mode, task))
        except Exception as error:  # a mode that this torch cannot do is a result; torch's errors share no base but this one
            answer(mode=mode, failed=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def device() -> torch.device:
    """Return the GPU, and in a rehearsal the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def answer(**values: Any) -> None:
    """Print one JSON object."""
    print(json.dumps(values), flush=True)


def make(task: dict[str, Any]) -> nn.Module:
    """Return a network with its weights, or with random ones from a seed, its BatchNorm settled on the sample.

    Untouched, random weights drive activations to nothing or to infinity within a few stages, where arithmetic is no longer
    what it is in a trained network. Settled means: BatchNorm's statistics are those of the sample, as after training.
    """
    torch.manual_seed(task["seed"])
    network = networks.create(task["network"])
    if task["weights"]:
        networks.load_weights(network, Path(task["weights"]))
        return network.eval()
    network.to(device()).eval()
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # take the sample's statistics as they are
        norm.reset_running_stats()
        norm.train()  # each passes its own statistics on, so that one run settles all of them
    with torch.no_grad():
        network(torch.from_numpy(np.load(task["sample"])).to(device()))
    return network.eval().cpu()


def measure(network: nn.Module, image: torch.Tensor, mode: str, task: dict[str, Any]) -> dict[str, Any]:
    """Time a network by trtexec's rules: on a GPU by its own clock, elsewhere by the host's."""
    how, precision = mode.split()
    network = copy.deepcopy(network).eval().to(image.device)
    if precision == "fp16":
        network, image = network.half(), image.half()
    began = time.perf_counter()
    run: Callable[[torch.Tensor], torch.Tensor] = network
    if how == "compile":
        run = torch.compile(network, mode="reduce-overhead")  # CUDA graphs, as the engines it is compared with
    with torch.inference_mode():
        for _ in range(3):
            run(image)
        prepared_s = time.perf_counter() - began
        clock = cuda_clock if image.is_cuda else host_clock
        end = time.perf_counter() + task["warm_up_ms"] / 1e3
        while time.perf_counter() < end:
            clock(run, image)
        values, start = [], time.perf_counter()
        while len(values) < task["iterations"] or time.perf_counter() - start < task["seconds"]:
            values.append(clock(run, image))
    return {
        "compute_ms": LatencySummary.from_ms(values).as_dict(),
        "prepared_s": round(prepared_s, 1),
        "device": torch.cuda.get_device_name() if image.is_cuda else "cpu",
        "tf32": bool(torch.backends.cudnn.allow_tf32),
        "torch": torch.__version__,
    }


def cuda_clock(run: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor) -> float:
    """Return the milliseconds of one run between two events of its stream."""
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    run(image)
    ended.record()
    ended.synchronize()
    return began.elapsed_time(ended)


def host_clock(run: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor) -> float:
    """Return the milliseconds of one run."""
    began = time.perf_counter()
    run(image)
    return (time.perf_counter() - began) * 1e3


if __name__ == "__main__":
    main()
