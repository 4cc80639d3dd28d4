"""What a network costs and the least time it can take, against torch's own modules and arithmetic by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from edgesod import zoo
from edgesod.bench.peaks import write_convolutions
from edgesod.bench.roofline import Peaks, Work, floor, standing, work_of
from edgesod.errors import InputError
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


def test_how_near_a_measured_time_comes() -> None:
    peaks = Peaks(gb_s=100, fp32=10, fp16=10, int8=40)
    found = standing(Work(macs=5 * 10**9, weights=10**6, activations=9 * 10**6), "int8", peaks, measured_ms=1.0)
    assert found["bytes"] == 10**7
    assert (found["compute_ms"], found["memory_ms"], found["bound_by"]) == (0.25, 0.1, "compute")
    assert found["share"] == pytest.approx(0.25)
    assert found["gops"] == pytest.approx(1e10 / 1e-3 / 1e9)
    assert found["intensity"] == pytest.approx(1000)
    assert found["ridge"] == pytest.approx(400)
    assert found["floors_ms"] == {"fp32": 1.0, "int8": 0.25}
    assert found["peaks"] == {"memory_gb_s": 100, "fp32_gops": 10_000, "int8_gops": 40_000}
    slow = standing(Work(macs=1, weights=0, activations=25 * 10**6), "fp32", peaks, measured_ms=2.0)
    assert (slow["bound_by"], slow["share"]) == ("memory", 0.5)


def test_a_quantised_file_is_refused_rather_than_miscounted(tmp_path: Path) -> None:
    write_convolutions(tmp_path / "int8.onnx", 1, 1, is_int8=True)
    with pytest.raises(InputError, match="not fixed"):
        work_of(tmp_path / "int8.onnx")
