"""Options that several commands share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesod.errors import UsageError

if TYPE_CHECKING:
    from edgesod.builder import TensorRtOptions
    from edgesod.evaluation.datasets import Dataset
    from edgesod.recipe import Precision

Model = Annotated[str | None, typer.Option("--model", help="A model by name, see `edgesod models`.")]
Fp32 = Annotated[bool, typer.Option("--fp32", help="32-bit floating point.")]
Fp16 = Annotated[bool, typer.Option("--fp16", help="16-bit floating point, FP32 inputs and outputs.")]
Bf16 = Annotated[bool, typer.Option("--bf16", help="bfloat16, where the CPU has it.")]
Int8 = Annotated[bool, typer.Option("--int8", help="8-bit integers (Q/DQ); the default.")]
Engine = Annotated[Path | None, typer.Option("--engine", help="An engine folder that `edgesod build` made.")]
Backend = Annotated[
    str, typer.Option("--backend", help="auto, tensorrt, openvino or onnxruntime; one that is named but missing is an error.")
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; one for each core by default.")]
Typing = Annotated[
    str,
    typer.Option("--typing", help="TensorRT: weak (precision by flags, until 10.x), strong (by the graph, from 10.0) or auto."),
]
Int8Route = Annotated[
    str,
    typer.Option(
        "--int8-route",
        help="TensorRT: qdq (scales in the ONNX), implicit (calibration cache; until 10.x, and for DLA) or auto.",
    ),
]
Workspace = Annotated[
    int | None,
    typer.Option(
        "--workspace", metavar="MIB", help="TensorRT: most memory that a layer may use; half of what is free by default."
    ),
]
OptLevel = Annotated[
    int | None, typer.Option("--opt-level", help="TensorRT: 0 (quickest build) to 5 (longest search for speed).")
]
Compatibility = Annotated[
    str,
    typer.Option(
        "--hardware-compatibility",
        help="TensorRT: other GPUs the engine may run on: none, same-compute-capability or ampere-plus.",
    ),
]
VersionCompatible = Annotated[
    bool, typer.Option("--version-compatible", help="TensorRT: let later versions run the engine; slower.")
]
Dla = Annotated[int | None, typer.Option("--dla", metavar="CORE", help="TensorRT, experimental: build for this DLA core.")]
Batch = Annotated[
    str,
    typer.Option(
        "--batch",
        metavar="1:OPT:MAX",
        help="TensorRT: smallest, usual and largest batch; MAX alone stands for 1:MAX:MAX. Larger ones than 1 are for other "
        "programs: edgesod runs one image at a time.",
    ),
]
FrameInput = Annotated[
    str | None,
    typer.Option(
        "--frame-input",
        metavar="WIDTHxHEIGHT",
        help="Resize and normalise in the network, which then takes frames of this size only.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def tensorrt_options(
    *,
    typing: str,
    int8_route: str,
    workspace: int | None,
    opt_level: int | None,
    compatibility: str,
    version_compatible: bool,
    dla: int | None,
    batch: str,
) -> TensorRtOptions | None:
    """Return what was asked of TensorRT, or ``None`` where nothing was."""
    from pydantic import ValidationError

    from edgesod.builder import TensorRtOptions
    from edgesod.recipe import problems

    numbers = batch.split(":")
    try:
        options = TensorRtOptions.model_validate(
            {
                "typing": typing,
                "int8_route": int8_route,
                "workspace_mib": workspace,
                "optimization_level": opt_level,
                "hardware_compatibility": compatibility,
                "is_version_compatible": version_compatible,
                "dla_core": dla,
                "batch": (1, numbers[0], numbers[0]) if len(numbers) == 1 else numbers,
            }
        )
    except ValidationError as error:
        raise UsageError(f"TensorRT cannot be asked for that: {problems(error)}", hint="see `edgesod build --help`") from error
    return None if options == TensorRtOptions() else options


def frame_hw(text: str) -> tuple[int, int]:
    """Return height and width of ``WIDTHxHEIGHT``."""
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise UsageError(f"--frame-input {text} is no size of frames", hint="--frame-input 1280x720")
    return int(height), int(width)


def precision_from(*, fp32: bool, fp16: bool, bf16: bool, int8: bool) -> Precision | None:
    """Return the one precision asked for, or ``None``; two at once are a usage error."""
    asked: list[Precision] = []
    for chosen, name in ((fp32, "fp32"), (fp16, "fp16"), (bf16, "bf16"), (int8, "int8")):
        if chosen:
            asked.append(name)  # type: ignore[arg-type]
    if len(asked) > 1:
        raise UsageError(f"one precision at a time, not {' and '.join(asked)}", hint=f"--{asked[-1]} alone")
    return asked[0] if asked else None


def known_set(name: str) -> Dataset:
    """Return the published set of a name, whatever its case and punctuation."""
    from edgesod.evaluation.datasets import DATASETS, find_dataset

    found = find_dataset(name)
    if found is None:
        raise UsageError(f"there is no set {name!r}", hint=f"sets: {', '.join(known.name for known in DATASETS)}")
    return found
