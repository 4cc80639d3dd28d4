"""A job's engine by TensorRT: the ONNX its policy asks for, calibration, and the build in a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesod import assets
from edgesod.errors import UsageError
from edgesod.files import write_atomically
from edgesod.runtime.cuda import open_cuda
from edgesod.runtime.tensorrt_version import require_tensorrt, version_number

from .job import FP32, Job, Made
from .tensorrt_build import BuildRequest
from .tensorrt_calibrators import algorithm_for
from .tensorrt_policy import Policy, TensorRtOptions, policy
from .tensorrt_process import build_in_child

if TYPE_CHECKING:
    from edgesod.calibration.tensorrt_cache import Algorithm

PLAN, FREE, CACHE = "engine.plan", "free-batch.onnx", "calibration.cache"


def make_plan(job: Job, options: TensorRtOptions) -> Made:
    """Build an engine with TensorRT.

    For implicit INT8, ``job.calib`` may also be a calibration cache of TensorRT's; on folders and tars of images TensorRT
    calibrates itself there.

    Raises:
        BackendError: No GPU or no TensorRT, or they cannot do what was asked.
        BuildError: The build failed, or made another precision.
        UsageError: The options contradict each other, or ranges are given that the build has no use for.
    """
    with open_cuda() as cuda:
        version = require_tensorrt(cuda)
    rule = policy(version, job.recipe.precision, options)
    if job.recipe.frame_hw is not None:
        _require_fitting_frames(job, rule, options)
    job.on_step(
        f"TensorRT {version}, {rule.typing}ly typed"
        + (f", builder flags {' and '.join(rule.builder_flags)}" if rule.builder_flags else "")
    )
    if rule.typing == "weak" and job.recipe.precision == "fp16":
        _require_no_ranges(job, version)
    onnx = job.work / job.write_onnx(rule.onnx)
    if options.batch[2] > 1:
        from edgesod.calibration.batch import free_batch

        free_batch(job.work / FP32, job.work / FREE)
        free_batch(onnx, job.work / FREE, compare=False)
        onnx = job.work / FREE
    algorithm = algorithm_for(job.recipe.quantisation.method, on_dla=options.dla_core is not None)
    images = job.images if rule.int8_route == "implicit" else ()
    cache = None
    if rule.int8_route == "implicit" and not images:
        cache = job.work / CACHE
        write_atomically(cache, _finished_cache(job, algorithm, version, on_dla=options.dla_core is not None))
    job.on_step("building the engine")
    built = build_in_child(
        BuildRequest(
            recipe=job.recipe,
            onnx=onnx,
            plan=job.work / PLAN,
            options=options,
            typing=rule.typing,
            int8_route=rule.int8_route,
            network_flags=rule.network_flags,
            builder_flags=rule.builder_flags,
            algorithm=algorithm,
            cache=cache,
            images=images,
            written_cache=job.work / CACHE,
            timing_caches=assets.cache() / "tensorrt",
        ),
        job.on_step,
        job.on_progress,
    )
    job.on_step("layers by type: " + ", ".join(f"{number} {kind}" for kind, number in built.layers.items()))
    return Made(PLAN, built)


def _require_fitting_frames(job: Job, rule: Policy, options: TensorRtOptions) -> None:
    """Refuse what a network that takes frames cannot be built with."""
    if options.batch[2] > 1:
        raise UsageError("a network that takes frames takes one at a time", hint="leave out --batch or --frame-input")
    if rule.int8_route == "implicit" and job.images:
        raise UsageError(
            "TensorRT calibrates on what the network takes, and pictures of any size are no frames",
            hint="--calib TABLE from `edgesod calibrate`, or leave out --frame-input",
        )


def _require_no_ranges(job: Job, version: str) -> None:
    """Say that a flag makes the FP16 here, not the graph, so that neither ranges nor ``float_nodes`` have a say."""
    if job.calib:
        remedy = "leave out --calib"
        raise UsageError(
            f"TensorRT {version} makes a weakly typed FP16 engine by a flag, and has no use for ranges",
            hint=f"{remedy}, or --typing strong" if version_number(version) >= (10, 0) else remedy,
        )
    kept = job.recipe.quantisation.float_nodes
    job.on_step(
        "FP16 is a flag here: no layer is checked against its range"
        + (f", and {', '.join(kept)} need not stay in FP32" if kept else "")
    )


def _finished_cache(job: Job, algorithm: Algorithm, version: str, *, on_dla: bool) -> bytes:
    """Return the calibration cache that was given, under this version's name, else that of the table."""
    from edgesod.calibration.tensorrt_cache import SUFFIX, cache_of_table, float_tensors, format_cache, read_cache

    if job.calib and job.calib[0].suffix == SUFFIX:
        return format_cache(read_cache(job.calib[0]), algorithm, version)
    quantisation = job.recipe.quantisation
    # a DLA runs nothing in INT8 that lacks a scale, and gives it to the GPU instead
    without = set() if on_dla else float_tensors(job.work / FP32, quantisation.float_nodes)
    return cache_of_table(job.table(), quantisation.method, algorithm, version, without)
