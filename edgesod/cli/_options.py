"""Options that several commands share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgesod.errors import UsageError
from edgesod.recipe import Precision

Model = Annotated[str | None, typer.Option("--model", help="Name of a model, see `edgesod models`.")]
Fp32 = Annotated[bool, typer.Option("--fp32", help="32-bit floating point.")]
Fp16 = Annotated[bool, typer.Option("--fp16", help="16-bit floating point, FP32 inputs and outputs.")]
Bf16 = Annotated[bool, typer.Option("--bf16", help="bfloat16, where the CPU has it.")]
Int8 = Annotated[bool, typer.Option("--int8", help="8-bit integers (Q/DQ).")]
Engine = Annotated[Path | None, typer.Option("--engine", help="An engine folder that `edgesod build` made.")]
Backend = Annotated[str, typer.Option("--backend", help="auto, openvino or onnxruntime; what is named must be had.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; all by default.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def precision_from(*, fp32: bool, fp16: bool, bf16: bool, int8: bool) -> Precision | None:
    """Return the one precision asked for, or ``None``; two at once are a usage error."""
    asked: list[Precision] = []
    for chosen, name in ((fp32, "fp32"), (fp16, "fp16"), (bf16, "bf16"), (int8, "int8")):
        if chosen:
            asked.append(name)  # type: ignore[arg-type]
    if len(asked) > 1:
        raise UsageError(
            f"one precision at a time, not {' and '.join(asked)}", hint=f"edgesod build --model u2netp --{asked[-1]}"
        )
    return asked[0] if asked else None
