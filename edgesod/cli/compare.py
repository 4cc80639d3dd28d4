"""``edgesod compare``: engines, ONNX files, models and checkpoints side by side, accuracy and speed together."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from edgesod.cli import _options, _output
from edgesod.errors import UsageError

if TYPE_CHECKING:
    from edgesod.cli._subjects import Subject
    from edgesod.recipe import Precision
    from edgesod.runtime import Runtime

NAME = "compare"

_TORCH = "torch:"
_HINT = "edgesod compare u2netp:fp32 u2netp:int8 engines/mine mine.onnx torch:mine.safetensors"


def command(
    what: Annotated[
        list[str],
        typer.Argument(
            help="Two or more of: an engine folder, an ONNX file, MODEL:PRECISION, torch:CHECKPOINT; each may end in @BACKEND. "
            "The others are compared with the first."
        ),
    ],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder with images/ and masks/, or a tar of one, for MAE and max-F, or a folder of images; several times for parts "
            "of a set; four photographs by default."
        ),
    ] = None,
    image: Annotated[Path | None, typer.Option(help="The frame to time; a photograph at 1280×720 by default.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds of timing.")] = 9,
    model: Annotated[str | None, typer.Option(help="The network, for ONNX files and checkpoints that do not say.")] = None,
    backend: _options.Backend = "auto",
    threads: _options.Threads = None,
    as_json: _options.Json = False,
) -> None:
    """Compare speed and accuracy of engines, ONNX files and weights.

    Speed is measured in interleaved rounds. Maps are compared with those of the first, and with ground truth where --data has masks.
    """
    from edgesod.bench.compare import as_dict, compare_accuracy, compare_speed
    from edgesod.bench.environment import environment
    from edgesod.bench.measure import bench_frame
    from edgesod.builder.gate import GateSet, stretched
    from edgesod.cli._subjects import distinguish_labels
    from edgesod.manifest import this_device

    if len(what) < 2:
        raise UsageError(f"one thing alone cannot be compared: {what[0]}", hint=_HINT)
    subjects = [_subject(word, model, backend, threads) for word in what]
    distinguish_labels(subjects)
    images = GateSet(data)
    with ExitStack() as stack:
        runtimes = [stack.enter_context(subject.source()) for subject in subjects]  # type: ignore[operator]
        size_hw = _frame_hw(runtimes)
        frame = bench_frame(image, size_hw)
        pairs = stretched(images, size_hw) if size_hw is not None else images
        with _output.progress("accuracy") as update:
            accuracies = compare_accuracy(runtimes, pairs, on_image=lambda done: update(done, len(images)))
        with _output.progress("rounds") as update:
            speeds = compare_speed(runtimes, frame, rounds=rounds, on_progress=update)
        found = {
            subject.label: as_dict(runtime, speed, accuracy)
            for subject, runtime, speed, accuracy in zip(subjects, runtimes, speeds, accuracies, strict=True)
        }
    value = {
        "contenders": found,
        "images": images.description,
        "num_images": len(images),
        "frame": list(frame.shape[:2]),
        "rounds": rounds,
        "environment": environment(this_device()),
    }
    if as_json:
        _output.result_json(value)
        return
    _print(value)


def _print(value: dict[str, Any]) -> None:
    from edgesod.bench.svg import counted

    found: dict[str, dict[str, Any]] = value["contenders"]
    first = next(iter(found))
    scored = [name for name in ("mae", "max_f") if name in found[first]]
    columns = ("", "backend", "ms", "IQR", "network ms", "× first", "quartiles", "drift", "mask IoU", *scored)
    rows = [
        (
            label,
            f"{one['backend']} {one['precision']}",
            one["ms"],
            f"{one['spread']:.1%}",
            one["network_ms"],
            one["ratio"],
            "{:.2f}–{:.2f}".format(*one["ratio_spread"]),
            one["drift"],
            one["mask_iou"],
            *(one[name] for name in scored),
        )
        for label, one in found.items()
    ]
    height, width = value["frame"]
    rounds, images = counted(value["rounds"], "interleaved round"), counted(value["num_images"], "image")
    title = f"{rounds} of a {width}×{height} frame end to end; {images} ({value['images']})"
    _output.table(title, columns, rows)
    _output.result(f"× first: how many times as fast as {first}, the median of the rounds' ratios; drift: from its maps")
    _output.result(f"on {value['environment']['cpu']}, {counted(value['environment']['cores'], 'core')}")


def _subject(word: str, model: str | None, backend: str, threads: int | None) -> Subject:
    """Return what a word of the command line names."""
    from functools import partial

    from edgesod.cli._runtime import open_runtime
    from edgesod.cli._subjects import Subject, open_file
    from edgesod.cli._torch_session import open_torch
    from edgesod.recipe import Precision

    where, (name, at, last) = "", word.rpartition("@")
    if at and "/" not in last and not Path(word).exists():
        word, backend, where = name, last, f"@{last}"
    path = Path(word)
    precision = next((one for one in get_args(Precision) if word.endswith(f":{one}")), None)
    if word.startswith(_TORCH):
        weights = Path(word.removeprefix(_TORCH))
        return Subject(f"torch:{weights.name}", partial(open_torch, weights, model, threads), "")
    if path.suffix == ".onnx":
        opened = partial(open_file, model, None, backend, threads, onnx=path, precision=_precision_of(path))
        return Subject(f"{path.name}{where}", opened, "")
    if precision is not None:
        start = word.removesuffix(f":{precision}")
        return Subject(f"{start}:{precision}{where}", partial(open_runtime, None, start, precision, backend, threads), start)
    if path.is_dir() or "/" in word:
        return Subject(f"{path.resolve().name}{where}", partial(open_runtime, path, None, None, backend, threads), "")
    raise UsageError(f"{word!r} is no engine folder, no .onnx file, no MODEL:PRECISION and no torch:CHECKPOINT", hint=_HINT)


def _frame_hw(runtimes: list[Runtime]) -> tuple[int, int] | None:
    """Return the one size of frame that some of the engines take, ``None`` where all take any."""
    sizes = {runtime.recipe.frame_hw for runtime in runtimes} - {None}
    if len(sizes) > 1:
        found = " and ".join(f"{size[1]}×{size[0]}" for size in sizes if size is not None)
        raise UsageError(f"these engines take frames of {found}, so no frame suits all", hint="compare engines of one size")
    return next(iter(sizes), None)


def _precision_of(path: Path) -> Precision:
    """Return the precision that an ONNX file was written for: what it computes in is in the file."""
    from onnx import TensorProto

    from edgesod.export.about import load_onnx

    graph = load_onnx(path, with_weights=False).graph
    if any(node.op_type == "QuantizeLinear" for node in graph.node):
        return "int8"
    return "fp16" if any(constant.data_type == TensorProto.FLOAT16 for constant in graph.initializer) else "fp32"
