"""Each version of TensorRT is asked for what it has, and for nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgesod.builder import build
from edgesod.builder.tensorrt_policy import Policy, TensorRtOptions, policy
from edgesod.errors import BackendError, EdgesodError, UsageError
from edgesod.recipe import Precision
from tests.contract.record import VERSIONS, load

from .small import recipe, write_small

BATCH, STRONG = ("EXPLICIT_BATCH",), ("STRONGLY_TYPED",)
FP16, BOTH = ("FP16",), ("INT8", "FP16")

# version, what auto takes → per typing: network flags, then (ONNX, builder flags) for FP32, FP16, INT8
EXPECTED: dict[str, tuple[str, dict[str, tuple[tuple[str, ...], list[tuple[str, tuple[str, ...]]]]]]] = {
    "8.5.3.1": ("weak", {"weak": (BATCH, [("fp32", ()), ("fp32", FP16), ("qdq", BOTH)])}),
    "8.6.1": ("weak", {"weak": (BATCH, [("fp32", ()), ("fp32", FP16), ("qdq", BOTH)])}),
    "10.3.0": (
        "weak",
        {
            "weak": ((), [("fp32", ()), ("fp32", FP16), ("qdq", BOTH)]),
            "strong": (STRONG, [("fp32", ()), ("fp16", ()), ("half-qdq", ())]),
        },
    ),
    "10.11.0": (
        "weak",
        {
            "weak": ((), [("fp32", ()), ("fp32", FP16), ("qdq", BOTH)]),
            "strong": (STRONG, [("fp32", ()), ("fp16", ()), ("half-qdq", ())]),
        },
    ),
    "10.12.0": (
        "strong",
        {
            "weak": ((), [("fp32", ()), ("fp32", FP16), ("qdq", BOTH)]),
            "strong": (STRONG, [("fp32", ()), ("fp16", ()), ("half-qdq", ())]),
        },
    ),
    "10.16.1.11": (
        "strong",
        {
            "weak": ((), [("fp32", ()), ("fp32", FP16), ("qdq", BOTH)]),
            "strong": (STRONG, [("fp32", ()), ("fp16", ()), ("half-qdq", ())]),
        },
    ),
    "11.4.0.106": ("strong", {"strong": ((), [("fp32", ()), ("fp16", ()), ("half-qdq", ())])}),
}
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


def options(**asked: Any) -> TensorRtOptions:
    return TensorRtOptions(**asked)


@pytest.mark.parametrize("typing", ["weak", "strong"])
@pytest.mark.parametrize("version", EXPECTED)
def test_the_table(version: str, typing: Any) -> None:
    auto, by_typing = EXPECTED[version]
    for k, precision in enumerate(PRECISIONS):
        if typing not in by_typing:
            with pytest.raises(BackendError, match=f"TensorRT {version} has no {typing} typing") as caught:
                policy(version, precision, options(typing=typing))
            assert caught.value.hint
            continue
        network_flags, files = by_typing[typing]
        route = "qdq" if precision == "int8" else None
        expected = Policy(typing, route, files[k][0], network_flags, files[k][1])  # type: ignore[arg-type]
        assert policy(version, precision, options(typing=typing)) == expected
        if typing == auto:
            assert policy(version, precision) == expected


@pytest.mark.parametrize("version", VERSIONS)
def test_every_flag_is_there_and_none_that_is_needed_is_missing(version: str) -> None:
    record = load(version)
    asked = [options(typing=typing, int8_route=route) for typing in ("weak", "strong") for route in ("qdq", "implicit")]
    asked += [options(typing="weak"), options(typing="strong"), options(dla_core=0)]
    found = 0
    for precision in PRECISIONS:
        for choice in asked:
            try:
                rule = policy(version, precision, choice)
            except EdgesodError:
                continue
            found += 1
            for name in rule.network_flags:
                assert name in record.classes["NetworkDefinitionCreationFlag"]["values"]
            for name in rule.builder_flags:
                assert name in record.classes["BuilderFlag"]["values"]
            assert ("EXPLICIT_BATCH" in rule.network_flags) == (record.number < (10, 0))
            if rule.int8_route == "implicit":
                assert "IInt8EntropyCalibrator2" in record.classes
    assert found >= 3


@pytest.mark.parametrize("version", ["8.5.3.1", "10.3.0", "10.16.1.11"])
def test_the_implicit_route_is_weakly_typed_fp32_with_flags(version: str) -> None:
    rule = policy(version, "int8", options(int8_route="implicit"))
    assert (rule.typing, rule.int8_route, rule.onnx, rule.builder_flags) == ("weak", "implicit", "fp32", BOTH)


def test_a_dla_takes_scales_from_a_calibrator_until_11_and_from_the_graph_after() -> None:
    rule = policy("10.3.0", "int8", options(dla_core=0))
    assert (rule.typing, rule.int8_route, rule.onnx) == ("weak", "implicit", "fp32")
    assert policy("10.16.1", "fp16", options(dla_core=0)).builder_flags == FP16
    rule = policy("11.4.1", "int8", options(dla_core=0))
    assert (rule.typing, rule.int8_route, rule.onnx) == ("strong", "qdq", "half-qdq")


@pytest.mark.parametrize(
    ("version", "precision", "asked", "kind", "message"),
    [
        ("8.4.1", "fp16", {}, BackendError, "too old"),
        ("11.4.0", "int8", {"int8_route": "implicit"}, BackendError, "no calibrators"),
        ("10.16.1", "int8", {"int8_route": "implicit", "typing": "strong"}, UsageError, "flags"),
        ("10.16.1", "fp16", {"int8_route": "qdq"}, UsageError, "is for INT8"),
        ("10.16.1", "bf16", {}, UsageError, "not BF16"),
        ("10.3.0", "fp32", {"dla_core": 0}, UsageError, "FP16 and INT8 only"),
        ("10.3.0", "fp16", {"dla_core": 0, "batch": (1, 2, 4)}, UsageError, "fixed shapes"),
        ("10.3.0", "int8", {"dla_core": 0, "int8_route": "qdq"}, UsageError, "from a calibrator"),
        ("10.3.0", "fp16", {"dla_core": 0, "typing": "strong"}, UsageError, "from flags"),
        ("10.3.0", "fp16", {"batch": (2, 2, 4)}, UsageError, "begins with 1"),
        ("10.3.0", "fp16", {"batch": (1, 4, 2)}, UsageError, "begins with 1"),
        ("10.3.0", "fp16", {"batch": (1, 0, 0)}, UsageError, "begins with 1"),
    ],
)
def test_refusals_say_what_to_do(
    version: str, precision: Precision, asked: dict[str, Any], kind: type[EdgesodError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        policy(version, precision, options(**asked))
    assert caught.value.hint


def test_options_for_tensorrt_mean_nothing_to_another_backend(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mean nothing to onnxruntime") as caught:
        build(recipe("fp32"), write_small(tmp_path / "small.onnx"), backend="onnxruntime", tensorrt=options(dla_core=0))
    assert "--backend tensorrt" in caught.value.hint
