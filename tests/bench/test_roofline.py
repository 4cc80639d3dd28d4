"""What a network costs and the least time it can take, against torch's own modules and arithmetic by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from edgesod import zoo
from edgesod.bench.roofline import Peaks, Work, floor, work_of
from tests.helpers.engines import write_tiny


def test_a_convolution_by_hand(tmp_path: Path) -> None:
    work = work_of(write_tiny(tmp_path / "tiny.onnx", (32, 48)))
    assert work == Work(macs=32 * 48 * 3 * 3 * 3, weights=27, activations=32 * 48 * (3 + 1))


def test_multiplications_are_those_of_torchs_convolutions() -> None:
    torch = pytest.importorskip("torch")
    from trainer import networks

    found = []

    def count(conv: object, _inputs: object, output: object) -> None:
        found.append(output.numel() * math.prod(conv.weight.shape[1:]))  # type: ignore[attr-defined]

    network = networks.create("u2netp").to("meta").eval()
    for part in network.modules():
        if isinstance(part, torch.nn.Conv2d):
            part.register_forward_hook(count)
    network(torch.empty(1, 3, 320, 320, device="meta"))
    work = work_of(zoo.shipped("u2netp").onnx)
    assert work.macs == sum(found)
    # batch normalisation was folded: weights are those of the convolutions alone, biases included
    convolutions = [part for part in network.modules() if isinstance(part, torch.nn.Conv2d)]
    assert work.weights == sum(part.weight.numel() + part.weight.shape[0] for part in convolutions)


def test_the_larger_of_arithmetic_and_traffic_binds() -> None:
    peaks = Peaks(gb_s=100, fp32=10, fp16=20, int8=40)
    arithmetic = Work(macs=5 * 10**9, weights=0, activations=10**6)
    assert floor(arithmetic, "fp32", peaks).ms == pytest.approx(1.0)
    assert floor(arithmetic, "int8", peaks).ms == pytest.approx(0.25)
    traffic = Work(macs=1, weights=0, activations=25 * 10**6)
    assert floor(traffic, "fp32", peaks).ms == pytest.approx(1.0)
    assert floor(traffic, "fp16", peaks).ms == pytest.approx(0.5)
