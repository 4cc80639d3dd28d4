"""What was made: ``manifest.json`` beside an engine, read and checked before anything is loaded."""

from __future__ import annotations

import platform
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from edgesod.errors import InputError, ManifestMismatch
from edgesod.files import sha256_of, write_atomically
from edgesod.recipe import Precision, Recipe, problems
from edgesod.types import TensorSpec

FILE_NAME = "manifest.json"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Device(_Strict):
    """The machine an engine was built on."""

    name: str
    """CPU or GPU model name."""
    architecture: str
    """Such as ``x86_64`` or ``aarch64``."""
    int8_dot_product: bool
    """Whether the CPU multiplies 8-bit integers into 32-bit sums without saturating (VNNI, or ARM's dot product)."""


class GateReport(_Strict):
    """What the gate measured, engine against FP32 on the same images."""

    images: str
    """Where the images came from."""
    n: int
    map_mae: float
    """Mean absolute difference between the two maps."""
    mask_iou: float
    """Mean intersection over union of the two masks at the recipe's threshold."""
    mae: float | None = None
    """MAE of the engine against ground truth; ``None`` without masks, as the next three."""
    mae_drift: float | None = None
    max_f: float | None = None
    max_f_drift: float | None = None
    latency_ms: float
    """Median inference time of the engine."""
    fp32_latency_ms: float
    """Median inference time of FP32 in ONNX Runtime, in the same interleaved rounds."""
    speedup: float
    """Median of the rounds' ratios, FP32 over engine."""
    warnings: tuple[str, ...] = ()


class Manifest(_Strict):
    """The record of one engine folder."""

    schema_version: Literal[1] = 1
    recipe: Recipe
    backend: str
    engine_file: str
    """File name of the engine within the folder."""
    onnx_file: str
    """File name of the FP32 ONNX it came from within the folder."""
    sha256: dict[str, str]
    """File name → hash for every file in the folder, and ``calibration_table`` where one was used."""
    device: Device
    versions: dict[str, str]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    gate: GateReport
    created: str
    """UTC, ISO 8601."""

    @property
    def precision(self) -> Precision:
        """The recipe's precision."""
        return self.recipe.precision

    def write(self, folder: Path) -> None:
        """Write ``manifest.json`` into ``folder``, whole or not at all."""
        write_atomically(folder / FILE_NAME, (self.model_dump_json(indent=1) + "\n").encode())


def read_manifest(folder: str | Path) -> Manifest:
    """Read the manifest of an engine folder.

    Raises:
        InputError: There is no such folder, no manifest in it, or it is not a valid one.
    """
    folder = Path(folder)
    path = folder / FILE_NAME
    if not path.is_file():
        raise InputError(f"{folder} is not an engine folder: it has no {FILE_NAME}", hint="make one with `edgesod build`")
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        raise InputError(
            f"{path} is not a valid manifest: {problems(error)}", hint="build the engine again with `edgesod build`"
        ) from error


def check_manifest(folder: str | Path) -> Manifest:
    """Read a manifest and compare it with the files beside it and with this machine.

    Raises:
        ManifestMismatch: A file is missing or changed, or the engine was built for a CPU with other integer arithmetic.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    rebuild = f"edgesod build --model {manifest.recipe.model} --{manifest.precision}"
    for name in (manifest.engine_file, manifest.onnx_file):
        path = folder / name
        if not path.is_file():
            raise ManifestMismatch(f"{folder} lacks {name}, which its manifest names", hint=f"rebuild it: `{rebuild}`")
        if sha256_of(path) != manifest.sha256.get(name):
            raise ManifestMismatch(
                f"{path} is not the file its manifest describes (sha256 differs)", hint=f"rebuild it: `{rebuild}`"
            )
    here = this_device()
    if manifest.device.architecture != here.architecture:
        raise ManifestMismatch(
            f"{folder} was built for {manifest.device.architecture}, this machine is {here.architecture}",
            hint=f"rebuild it here: `{rebuild}`",
        )
    if manifest.precision == "int8" and manifest.device.int8_dot_product and not here.int8_dot_product:
        raise ManifestMismatch(
            f"{folder} was built for a CPU with an 8-bit dot product ({manifest.device.name}); {here.name} has none, "
            "and its 16-bit sums would saturate",
            hint=f"rebuild it here: `{rebuild}`",
        )
    return manifest


@cache
def this_device() -> Device:
    """Describe this machine's CPU."""
    name, flags = platform.processor() or platform.machine(), ""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = value
                break
    except OSError:
        pass  # not Linux: the name is what platform knows, and no dot product is claimed
    words = set(flags.split())
    return Device(
        name=name, architecture=platform.machine(), int8_dot_product=bool(words & {"avx512_vnni", "avx_vnni", "asimddp"})
    )


def versions_here(*packages: str) -> dict[str, str]:
    """Return the installed version of each package, leaving out what is not installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
