"""What each version of TensorRT is asked for: which ONNX, which flags. The table is data; everything else only reads it.

Below 10.12 precision is asked for by flags (weak typing), from there it is that of the graph (strong typing), and 11 knows
nothing else. Sources: the Python bindings of 8.5.3 to 11.4, and NVIDIA's advice on strong typing, which it calls complete
from 10.12.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgesod.errors import BackendError, UsageError
from edgesod.recipe import Precision
from edgesod.runtime.tensorrt_version import OLDEST, version_number

from .job import OnnxKind

Typing = Literal["weak", "strong"]
Int8Route = Literal["qdq", "implicit"]


class TensorRtOptions(BaseModel):
    """What a person can choose about a build, besides the recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    typing: Literal["auto", "weak", "strong"] = "auto"
    int8_route: Literal["auto", "qdq", "implicit"] = "auto"
    """``qdq``: scales are in the ONNX. ``implicit``: TensorRT is handed them, or calibrates itself; gone from 11 on."""
    workspace_mib: Annotated[int, Field(ge=1)] | None = None
    """The most memory a layer may use while it runs; half of what is free where ``None``."""
    optimization_level: Annotated[int, Field(ge=0, le=5)] | None = None
    """How long to search for faster kernels; TensorRT's own choice, 3, where ``None``. From 8.6 on."""
    hardware_compatibility: Literal["none", "same-compute-capability", "ampere-plus"] = "none"
    """Which other GPUs the engine may run on, for some loss of speed. From 8.6 and 10.16 on; not on Jetsons."""
    is_version_compatible: bool = False
    """Whether later TensorRT may run it. From 8.6 on."""
    dla_core: Annotated[int, Field(ge=0)] | None = None
    """The DLA to build for; what it cannot run goes to the GPU."""
    tactic_sources: tuple[str, ...] | None = None
    """Members of ``TacticSource``: where it may take kernels from, for a place without cuBLAS or cuDNN; its own choice where
    ``None``."""
    batch: tuple[Annotated[int, Field(ge=1)], int, int] = (1, 1, 1)
    """Smallest, best and largest number of images at a time. All 1: the shapes are fixed."""

    @property
    def words(self) -> tuple[str, ...]:
        """The options of ``edgesod build`` that ask for this; :attr:`tactic_sources` has none."""
        said = {
            "--typing": self.typing,
            "--int8-route": self.int8_route,
            "--workspace": self.workspace_mib,
            "--opt-level": self.optimization_level,
            "--hardware-compatibility": self.hardware_compatibility,
            "--dla": self.dla_core,
            "--batch": ":".join(map(str, self.batch)),
        }
        words = [f"{option} {value}" for option, value in said.items() if value not in (None, "auto", "none", "1:1:1")]
        if self.is_version_compatible:
            words.append("--version-compatible")
        return tuple(words)


@dataclass(frozen=True)
class Policy:
    """How a precision is built.

    Attributes:
        typing: Whether flags or the graph decide about precision.
        int8_route: How scales get in; ``None`` where there are none.
        onnx: The file that is parsed.
        network_flags: Members of ``NetworkDefinitionCreationFlag``.
        builder_flags: Members of ``BuilderFlag``.
    """

    typing: Typing
    int8_route: Int8Route | None
    onnx: OnnxKind
    network_flags: tuple[str, ...]
    builder_flags: tuple[str, ...]


@dataclass(frozen=True)
class _Row:
    since: tuple[int, int]
    before: tuple[int, int]
    typing: Typing
    network_flags: tuple[str, ...]


NEVER = (1000, 0)
STRONG_BY_DEFAULT = (10, 12)
NO_FLAGS = (11, 0)
"""From here on there are no precision flags and no calibrators."""

ROWS = (
    _Row(OLDEST, (10, 0), "weak", ("EXPLICIT_BATCH",)),
    _Row((10, 0), NO_FLAGS, "weak", ()),
    _Row((10, 0), NO_FLAGS, "strong", ("STRONGLY_TYPED",)),
    _Row(NO_FLAGS, NEVER, "strong", ()),
)
FILES: dict[tuple[Typing, Precision, Int8Route | None], tuple[OnnxKind, tuple[str, ...]]] = {
    ("weak", "fp32", None): ("fp32", ()),
    ("weak", "fp16", None): ("fp32", ("FP16",)),
    ("weak", "int8", "qdq"): ("qdq", ("INT8", "FP16")),
    ("weak", "int8", "implicit"): ("fp32", ("INT8", "FP16")),
    ("strong", "fp32", None): ("fp32", ()),
    ("strong", "fp16", None): ("fp16", ()),
    ("strong", "int8", "qdq"): ("half-qdq", ()),
}
"""Typing, precision, route → the ONNX and the builder flags."""


def policy(version: str, precision: Precision, options: TensorRtOptions | None = None) -> Policy:
    """Look up how a version of TensorRT builds a precision.

    Args:
        version: ``tensorrt.__version__``.
        precision: The recipe's.
        options: What was asked for.

    Raises:
        BackendError: This version cannot do it.
        UsageError: No version can, or the options contradict each other.
    """
    options = options or TensorRtOptions()
    number = version_number(version)
    if number < OLDEST:
        raise BackendError(f"TensorRT {version} is too old: edgesod needs 8.5 or later", hint="update it")
    if precision == "bf16":
        raise UsageError("engines for TensorRT are FP32, FP16 or INT8, not BF16", hint="build --fp16")
    _check_together(precision, options, number)
    typing = _typing(options, number)
    route = _route(precision, options, number)
    if route == "implicit" and number >= NO_FLAGS:
        raise BackendError(f"TensorRT {version} has no calibrators any more", hint="leave out --int8-route implicit")
    rows = [row for row in ROWS if row.since <= number < row.before]
    row = next((row for row in rows if row.typing == typing), None)
    if row is None:
        raise BackendError(
            f"TensorRT {version} has no {typing} typing", hint=f"--typing {rows[0].typing}, which auto takes here as well"
        )
    if (typing, precision, route) not in FILES:
        raise UsageError(
            "implicit INT8 is asked for by flags, which a strongly typed network has not",
            hint="--typing weak, or leave out --int8-route implicit",
        )
    onnx, builder_flags = FILES[typing, precision, route]
    return Policy(typing, route, onnx, row.network_flags, builder_flags)


def _check_together(precision: Precision, options: TensorRtOptions, number: tuple[int, int]) -> None:
    low, best, high = options.batch
    if low != 1 or not low <= best <= high:
        raise UsageError(
            f"--batch {low}:{best}:{high} is no range that begins with 1, the one image a stream gives at a time",
            hint=f"--batch 1:{max(1, min(best, high))}:{max(1, best, high)}",
        )
    if precision != "int8" and options.int8_route != "auto":
        raise UsageError(f"--int8-route is for INT8, not {precision}", hint="leave it out, or build --int8")
    if options.dla_core is None:
        return
    if precision == "fp32":
        raise UsageError("DLA computes in FP16 and INT8 only", hint="build --fp16 or --int8")
    if high != 1:
        raise UsageError("DLA needs fixed shapes", hint="leave out --batch")
    if number < NO_FLAGS and (options.int8_route == "qdq" or options.typing == "strong"):
        raise UsageError(
            "before TensorRT 11, DLA takes its precision from flags and its scales from a calibrator",
            hint="leave out --typing and --int8-route",
        )


def _typing(options: TensorRtOptions, number: tuple[int, int]) -> Typing:
    if options.typing != "auto":
        return options.typing
    if number >= NO_FLAGS:
        return "strong"
    if options.dla_core is not None or options.int8_route == "implicit":
        return "weak"
    return "strong" if number >= STRONG_BY_DEFAULT else "weak"


def _route(precision: Precision, options: TensorRtOptions, number: tuple[int, int]) -> Int8Route | None:
    if precision != "int8":
        return None
    if options.int8_route != "auto":
        return options.int8_route
    return "implicit" if options.dla_core is not None and number < NO_FLAGS else "qdq"
