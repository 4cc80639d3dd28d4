"""What a backend's engine is made from: the FP32 ONNX in the folder that is being built, its typed versions, its ranges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from edgesod import assets
from edgesod.errors import StaleError
from edgesod.manifest import TensorRtBuild, this_device
from edgesod.recipe import Recipe

if TYPE_CHECKING:
    from edgesod.calibration.table import CalibrationTable

FP32, TYPED, TABLE = "model.onnx", "engine.onnx", "calibration.json"

OnnxKind = Literal["fp32", "cpu-fp32", "fp16", "cpu-qdq", "qdq", "half-qdq"]
"""What an ONNX computes in: FP32, as given or as CPUs like it; FP16; INT8 by the CPUs' scheme; by TensorRT's with the rest in
FP32, or in FP16."""


@dataclass(frozen=True)
class Made:
    """What a backend made in the job's folder.

    Attributes:
        engine_file: Name of what a session opens.
        tensorrt: How TensorRT built it.
    """

    engine_file: str
    tensorrt: TensorRtBuild | None = None


class Maker(Protocol):
    """Makes one backend's engine file."""

    def __call__(self, job: Job) -> Made:
        """Write it into the job's folder."""


@dataclass(frozen=True)
class Job:
    """One engine folder that is being built.

    Attributes:
        recipe: What is built.
        source: The FP32 ONNX as it was given; a calibration table belongs to it.
        work: The folder; it holds a copy of ``source``.
        calib: A calibration table, or folders and tars of images; the shipped table where empty.
        on_step: Told each step in a sentence.
        on_progress: Told ``(done, total)`` within the long steps.
    """

    recipe: Recipe
    source: Path
    work: Path
    calib: tuple[Path, ...]
    on_step: Callable[[str], None]
    on_progress: Callable[[int, int | None], None]

    @property
    def images(self) -> tuple[Path, ...]:
        """The folders and tars to calibrate on; none where a table or a cache was given, or nothing."""
        return tuple(path for path in self.calib if is_of_images(path))

    def write_onnx(self, kind: OnnxKind) -> str:
        """Write the ONNX of some kind into the folder, and the table it took; return the ONNX's name.

        It takes frames where the recipe names their size.
        """
        name, frame_hw = self._write_typed(kind), self.recipe.frame_hw
        if frame_hw is None:
            return name
        from edgesod.export.frame_input import write_frame_input

        self.on_step(f"resize, colour and normalisation go into the network, which takes frames of {frame_hw[1]}×{frame_hw[0]}")
        write_frame_input(self.work / name, self.work / TYPED, self.recipe)
        return TYPED

    def _write_typed(self, kind: OnnxKind) -> str:
        # imported here: reading and writing ONNX costs a fifth of a second that a loaded engine never needs
        from edgesod.calibration.fp16 import write_fp16
        from edgesod.calibration.qdq import write_half_qdq, write_qdq
        from edgesod.export.cheap_maps import write_cheap_maps

        source, target, quantisation = self.work / FP32, self.work / TYPED, self.recipe.quantisation
        if kind == "fp32":
            return FP32
        if kind == "cpu-fp32":
            return TYPED if write_cheap_maps(source, target) else FP32
        if kind == "fp16":
            kept = self.without_headroom()
            self.on_step("writing the FP16 graph")
            write_fp16(source, target, (*quantisation.float_nodes, *kept))
            return TYPED
        table = self.table()
        self.on_step(f"writing the INT8 graph ({quantisation.method} ranges of {table.num_images} images)")
        if kind == "half-qdq":
            kept = self._without_headroom(table)
            write_half_qdq(source, target, table, quantisation.method, float_nodes=quantisation.float_nodes, keep_float=kept)
        else:
            if kind == "cpu-qdq" and write_cheap_maps(source, target):
                source = target
            write_qdq(
                source,
                target,
                table,
                quantisation.method,
                scheme="cpu" if kind == "cpu-qdq" else "tensorrt",
                float_nodes=quantisation.float_nodes,
                reduce_weights=kind == "cpu-qdq" and not this_device().int8_dot_product,
            )
        return TYPED

    def without_headroom(self) -> tuple[str, ...]:
        """Return patterns for the layers whose values FP16 might not hold; none where there are no ranges to judge by."""
        try:
            table = self.table()
        except StaleError:
            if self.calib:
                raise
            self.on_step("no ranges of this network, so none is checked against FP16's; --calib DIR measures them")
            return ()
        return self._without_headroom(table)

    def _without_headroom(self, table: CalibrationTable) -> tuple[str, ...]:
        from edgesod.calibration.headroom import without_headroom

        kept = without_headroom(self.source, table)
        room = f"{len(kept)} layers stay in FP32" if kept else "every layer has room"
        self.on_step(f"ranges of {table.num_images} images checked against FP16's: {room}")
        return kept

    def table(self) -> CalibrationTable:
        """Read the calibration table, or make it from images; it is kept in the folder."""
        from edgesod.calibration import calibrate
        from edgesod.calibration.table import check_table, read_table

        if self.images:
            self.on_step(f"calibrating on {', '.join(map(str, self.images))}")
            table = calibrate(self.work / FP32, self.recipe, self.images, on_progress=self.on_progress)
        else:
            path = self.calib[0] if self.calib else _shipped_table(self.recipe)
            table = read_table(path)
            check_table(table, self.source, self.recipe)
        table.write(self.work / TABLE)
        return table


def is_of_images(path: Path) -> bool:
    """Say whether what was given to calibrate with is a folder or tar of images, not a table."""
    return path.is_dir() or path.suffix == ".tar"


def make_for_cpu(job: Job) -> Made:
    """Write the ONNX that CPU backends run; it is the engine."""
    kinds: dict[str, OnnxKind] = {"fp32": "cpu-fp32", "bf16": "cpu-fp32", "fp16": "fp16", "int8": "cpu-qdq"}
    return Made(job.write_onnx(kinds[job.recipe.precision]))


def _shipped_table(recipe: Recipe) -> Path:
    path = assets.tables() / f"{recipe.stem}.json"
    if not path.is_file():
        raise StaleError(
            f"no calibration table is shipped for {recipe.stem}",
            hint="the same command with --calib DIR, a folder or tar of 32 or more images like the ones it will see",
        )
    return path
