"""TensorRT builds what was asked for, in every version, or says what is in the way."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edgesod.builder import TensorRtOptions, build
from edgesod.errors import BackendError, BuildError, DeviceError, UsageError
from edgesod.manifest import read_manifest
from edgesod.recipe import Precision
from edgesod.runtime import open_session
from edgesod.runtime.cuda import memory
from tests.contract.machine import Machine
from tests.contract.record import load
from tests.helpers.tensorrt import nothing_lives

from .conftest import Bench
from .small import CONVS, SIZE_HW, TEXT, recipe, write_small

OLD, NEW = ["8.5.3.1", "8.6.1", "10.3.0"], ["10.16.1.11", "11.4.0.106"]
parametrize = pytest.mark.parametrize


def image() -> np.ndarray:
    return np.random.default_rng(3).normal(0, 1, (1, 3, *SIZE_HW)).astype(np.float32)


@parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_version_builds_every_precision(
    bench: Bench, machine: Machine, tensorrt_version: str, photographs: Path, precision: Precision
) -> None:
    record = bench.built(precision, photographs if precision == "int8" else None)
    number = load(tensorrt_version).number
    assert (record.version, record.gpu) == (tensorrt_version, memory.GPU)
    assert record.typing == ("strong" if number >= (10, 12) else "weak")
    assert record.optimization_level == (None if number < (8, 6) else 3)
    assert record.layers[precision] >= {"fp32": 12, "fp16": 12, "int8": len(CONVS) - 1}[precision]
    assert bench.told.requests[0].plan.read_bytes()[:4] == b"fake"  # raw, as TensorRT serialised it
    if number >= (10, 0):
        assert bench.told.progress[-1] == (1000, 1000)
    assert nothing_lives(machine)
    expected = onnxruntime.InferenceSession(bench.source).run(None, {"image": image()})[0]
    with open_session(bench.work / "engine.plan", precision, "tensorrt") as session:
        got = session.run({"image": image()})["saliency"]
    tolerance = {"fp32": 1e-6, "fp16": 3e-3, "int8": 0.05}[precision]
    assert np.abs(got - expected).mean() < tolerance


@parametrize("tensorrt_version", ["8.6.1", "11.4.0.106"])
def test_options_reach_tensorrt(bench: Bench, machine: Machine, tensorrt: ModuleType) -> None:
    record = bench.built(
        "fp16",
        workspace_mib=64,
        optimization_level=5,
        is_version_compatible=True,
        hardware_compatibility="ampere-plus",
    )
    head = bench.told.requests[0].plan.read_bytes().split(b"\n", 1)[1][8:]
    plan, _ = json.JSONDecoder().raw_decode(head.decode("utf-8", "replace"))
    assert plan["is_version_compatible"]
    assert plan["compatibility"] == "AMPERE_PLUS"
    assert (record.optimization_level, record.is_version_compatible, record.hardware_compatibility) == (5, True, "ampere-plus")
    assert "workspace 64 of 8192" in bench.told.steps
    assert record.options == (
        "--workspace 64",
        "--opt-level 5",
        "--hardware-compatibility ampere-plus",
        "--version-compatible",
    )


@parametrize("tensorrt_version", ["8.5.3.1"])
@parametrize(
    ("asked", "message"),
    [
        ({"optimization_level": 2}, "no optimization levels"),
        ({"is_version_compatible": True}, "no version compatibility"),
        ({"hardware_compatibility": "ampere-plus"}, "no hardware compatibility"),
    ],
)
def test_what_a_version_lacks_is_refused(bench: Bench, asked: dict[str, object], message: str) -> None:
    with pytest.raises(BackendError, match=message) as caught:
        bench.make("fp32", **asked)
    assert caught.value.hint.startswith("leave out --")


@parametrize("tensorrt_version", ["10.3.0"])
def test_a_compatibility_that_came_later_is_refused(bench: Bench) -> None:
    with pytest.raises(BackendError, match="same-compute-capability"):
        bench.make("fp32", hardware_compatibility="same-compute-capability")


def test_a_parser_error_names_node_and_operator(bench: Bench) -> None:
    text = TEXT.replace("[n12] saliency = Sigmoid (logits)", "[odd] saliency = Mystery (logits)")
    write_small(bench.work / "model.onnx", text)
    with pytest.raises(BuildError, match=r"cannot parse model.onnx: node 'odd' \(Mystery\): No importer"):
        bench.make("fp32")
    assert not (bench.work / "engine.plan").exists()


@parametrize("tensorrt_version", [*OLD, NEW[0]])
def test_another_precision_than_asked_for_fails(bench: Bench, machine: Machine) -> None:
    machine.keeps_fp32 = frozenset(CONVS)
    with pytest.raises(BuildError, match="fp16 was asked for, but TensorRT built its layers with weights otherwise: 4 in fp32"):
        bench.make("fp16", typing="weak")


def test_a_failed_build_gives_tensorrts_reason(bench: Bench, machine: Machine, photographs: Path) -> None:
    machine.refused_layers = frozenset(["n9"])
    with pytest.raises(BuildError, match="Could not find any implementation for node n9") as caught:
        bench.make("int8", photographs)
    assert "--fp16" in caught.value.hint
    assert nothing_lives(machine)


@parametrize("tensorrt_version", NEW)
def test_the_workspace_is_compared_with_free_memory_first(bench: Bench, machine: Machine) -> None:
    with pytest.raises(BuildError, match=r"workspace of 9000 MiB was asked for, but the GPU has 8192 MiB free") as caught:
        bench.make("fp32", workspace_mib=9000)
    assert "--workspace 4096" in caught.value.hint
    assert not machine.calls  # nothing was built
    machine.workspace_needed = 65 << 20
    with pytest.raises(BuildError, match="out of memory") as caught:
        bench.make("fp32", workspace_mib=64)
    assert "--workspace" in caught.value.hint
    bench.built("fp32")


def test_a_timing_cache_is_kept_for_its_version_and_gpu_and_passed_over_when_broken(
    bench: Bench, machine: Machine, tmp_path: Path, tensorrt_version: str
) -> None:
    bench.built("fp32")
    (kept,) = (tmp_path / "caches" / "tensorrt").iterdir()
    assert kept.name == f"{tensorrt_version}-in-memory-gpu-sm87.cache"
    assert "timing cache" not in bench.told.text
    first = kept.read_bytes()
    bench.built("fp32")
    assert f"timing cache {kept}" in bench.told.text
    bench.told.steps.clear()
    machine.gpu = "another GPU"  # a cache copied from elsewhere
    bench.built("fp32")
    assert "timing cache" not in bench.told.text
    assert kept.read_bytes() != first
    kept.write_bytes(b"torn")
    bench.built("fp32")
    assert "timing cache" not in bench.told.text


@parametrize("tensorrt_version", ["10.3.0"])
def test_a_place_where_no_timing_cache_can_be_kept_is_no_reason_to_fail(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "caches").write_text("not a folder")
    bench.built("fp32")
    assert "the next build will not be quicker: cannot write" in bench.told.text


def test_a_tensorrt_that_does_not_work_with_the_driver_says_why(bench: Bench, machine: Machine) -> None:
    machine.has_device = False
    with pytest.raises(BackendError, match=r"does not work with in-memory GPU.*CUDA initialization failure with error: 35"):
        bench.make("fp32")


@parametrize("tensorrt_version", ["10.3.0", *NEW])
def test_a_cancelled_build_ends_and_leaves_nothing(bench: Bench, machine: Machine) -> None:
    bench.told.cancelled.set()
    with pytest.raises(KeyboardInterrupt):
        bench.make("fp32")
    assert nothing_lives(machine)
    assert not (bench.work / "engine.plan").exists()


@parametrize("tensorrt_version", ["8.5.3.1"])
def test_a_gpu_lost_at_any_call_is_a_typed_error_and_leaves_nothing(
    bench: Bench, machine: Machine, tensorrt_version: str, photographs: Path
) -> None:
    before = memory.driver().calls
    bench.make("int8", photographs, int8_route="implicit")
    calls = memory.driver().calls - before
    failed = []
    for fail_at in range(1, calls + 1):
        with memory.simulated(fail_at=fail_at, fault="lost") as broken:
            try:
                bench.make("int8", photographs, int8_route="implicit")
            except DeviceError:
                failed.append(fail_at)
            gc.collect()
            assert not any(broken.live().values())
    # what fails while everything is let go of after a build is of no interest any more
    assert failed == list(range(1, len(failed) + 1))
    assert len(failed) >= 20
    assert nothing_lives(machine)


# -- dynamic batch ---------------------------------------------------------------------------------------------------------


@parametrize("precision", ["fp32", "int8"])
def test_a_free_batch_has_a_profile_and_runs_one_image(
    bench: Bench, tensorrt: ModuleType, photographs: Path, precision: Precision
) -> None:
    record = bench.built(precision, photographs if precision == "int8" else None, batch=(1, 2, 4))
    assert record.batch == (1, 2, 4)
    runtime = tensorrt.Runtime(tensorrt.Logger())
    engine = runtime.deserialize_cuda_engine((bench.work / "engine.plan").read_bytes())
    assert [tuple(s) for s in engine.get_tensor_profile_shape("image", 0)] == [(n, 3, *SIZE_HW) for n in (1, 2, 4)]
    with open_session(bench.work / "engine.plan", precision, "tensorrt") as session:
        assert session.inputs[0].shape == (1, 3, *SIZE_HW)
        got = session.run({"image": image()})["saliency"]
    expected = onnxruntime.InferenceSession(bench.source).run(None, {"image": image()})[0]
    assert np.abs(got - expected).mean() < 0.05


@parametrize("tensorrt_version", [*OLD, NEW[0]])
def test_a_free_batch_is_calibrated_on_one_image_at_a_time(
    bench: Bench, tensorrt: ModuleType, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[list[tuple[int, ...]]] = []
    set_profile = tensorrt.IBuilderConfig.set_calibration_profile

    def watch(config: Any, profile: Any) -> bool:
        shapes.append([tuple(shape) for shape in profile.get_shape("image")])
        return set_profile(config, profile)

    monkeypatch.setattr(tensorrt.IBuilderConfig, "set_calibration_profile", watch)
    record = bench.built("int8", photographs, batch=(1, 2, 4), int8_route="implicit")
    assert record.batch == (1, 2, 4)
    assert shapes == [[(1, 3, *SIZE_HW)] * 3]  # as much as the calibrator's buffer holds


# -- FP16 by a flag --------------------------------------------------------------------------------------------------------


@parametrize("tensorrt_version", ["8.6.1", "10.3.0"])
def test_fp16_by_a_flag_has_no_use_for_ranges_and_says_so(bench: Bench, photographs: Path, tensorrt_version: str) -> None:
    with pytest.raises(UsageError, match="no use for ranges") as caught:
        bench.make("fp16", photographs)
    assert ("--typing strong" in caught.value.hint) == (tensorrt_version == "10.3.0")
    bench.built("fp16")
    assert "no layer is checked against its range" in bench.told.text


@parametrize("tensorrt_version", ["10.3.0"])
def test_fp16_of_the_graph_takes_ranges(bench: Bench, photographs: Path) -> None:
    bench.built("fp16", photographs, typing="strong")
    assert "checked against FP16's" in bench.told.text


# -- engines that bring code along -----------------------------------------------------------------------------------------


@parametrize("tensorrt_version", ["8.6.1", NEW[1]])
def test_the_gate_runs_an_engine_that_brings_code_along(bench: Bench, tmp_path: Path) -> None:
    asked = TensorRtOptions(is_version_compatible=True)
    folder = build(recipe("fp32"), bench.source, backend="tensorrt", tensorrt=asked, root=tmp_path / "engines")
    record = read_manifest(folder).tensorrt
    assert record is not None
    assert record.is_version_compatible
