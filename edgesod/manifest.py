"""What was made: ``manifest.json`` beside an engine, read and checked before anything is loaded."""

from __future__ import annotations

import platform
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgesod.errors import InputError, ManifestMismatch
from edgesod.files import sha256_of, write_atomically
from edgesod.recipe import Precision, Recipe, problems
from edgesod.types import TensorSpec

FILE_NAME = "manifest.json"

REVISION = 1
"""Of what a build writes: to be raised whenever the same recipe and ONNX come to give another engine file."""


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


class Gpu(_Strict):
    """The GPU an engine was built on, or the one that is here."""

    name: str
    """As the driver gives it, such as ``Orin`` or ``NVIDIA GeForce RTX 4070``."""
    compute_capability: tuple[int, int]
    """Such as ``(8, 7)``."""
    memory_bytes: int
    """All its memory; on an integrated GPU, the machine's."""
    is_integrated: bool
    """Whether it shares its memory with the CPU."""
    driver: tuple[int, int]
    """The newest CUDA that the driver serves, such as ``(12, 6)``."""

    @property
    def text(self) -> str:
        """Name, compute capability and driver in a few words."""
        return f"{self.name} (compute capability {_dotted(self.compute_capability)}, driver for CUDA {_dotted(self.driver)})"


class TensorRtBuild(_Strict):
    """How TensorRT built an engine, as far as it decides where the engine runs and what it is."""

    version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+(\.|$)")]
    """``tensorrt.__version__``."""
    gpu: Gpu
    typing: Literal["weak", "strong"]
    """Whether precision was asked for by flags or is that of the graph."""
    hardware_compatibility: Literal["none", "same-compute-capability", "ampere-plus"] = "none"
    """Which other GPUs it may run on."""
    is_version_compatible: bool = False
    """Whether later TensorRT may run it; such an engine carries code, so it is run only where its file's hash is right."""
    optimization_level: int | None = None
    """0 to 5; ``None`` where TensorRT has no such setting (8.5)."""
    dla_core: int | None = None
    batch: tuple[int, int, int] = (1, 1, 1)
    """Smallest, best and largest batch."""
    options: tuple[str, ...] = ()
    """What else was asked for, in the words of ``edgesod build``, such as ``--opt-level 5``."""
    layers: dict[str, int] = {}
    """Number of layers by the type they compute in, as the engine inspector reads them back."""


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
    """Median time of the engine's preprocessing and inference: where the network takes frames, the first is part of the second."""
    fp32_latency_ms: float
    """The same of FP32 in ONNX Runtime, in the same interleaved rounds."""
    speedup: float
    """Median of the rounds' ratios, FP32 over engine."""
    warnings: tuple[str, ...] = ()


class Manifest(_Strict):
    """The record of one engine folder."""

    schema_version: Literal[1] = 1
    revision: int = 0
    """The builder's :data:`REVISION`; 0 where it had none."""
    recipe: Recipe
    backend: str
    engine_file: str
    """File name of the engine within the folder."""
    onnx_file: str
    """File name of the FP32 ONNX it came from within the folder."""
    sha256: dict[str, str]
    """File name → hash of every file that the build made, the calibration table where one was used among them."""
    device: Device
    tensorrt: TensorRtBuild | None = None
    """How TensorRT built it; ``None`` for the other backends."""
    given: tuple[str, ...] = ()
    """What ``edgesod build`` has to be given again: ``--backend NAME``, ``--onnx FILE`` and ``--calib FILE`` where they were."""
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

    @property
    def rebuild(self) -> str:
        """The command that builds it again on this machine, with the options it was built with; ``FILE`` is the user's own."""
        words = ["edgesod build --model", self.recipe.model, f"--{self.precision}"]
        if self.recipe.frame_hw is not None:
            words.append(f"--frame-input {self.recipe.frame_hw[1]}x{self.recipe.frame_hw[0]}")
        if self.tensorrt is not None:
            words += [f"--backend {self.backend}", *self.tensorrt.options]
        return " ".join([*words, *self.given])

    def is_from(self, recipe: Recipe, onnx: str | Path) -> bool:
        """Say whether a build of this recipe and ONNX would make this engine again: it was made of them, and not by an older builder."""
        return (self.recipe, self.sha256.get(self.onnx_file), self.revision) == (recipe, sha256_of(onnx), REVISION)

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
    """Read a manifest and compare it with the files beside it and with this machine's CPU.

    What TensorRT built is compared with GPU and TensorRT by :func:`check_gpu`, which needs to be told what is here.

    Raises:
        ManifestMismatch: A file is missing or changed, or the engine was built for a CPU with other integer arithmetic.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    rebuild = manifest.rebuild
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
    on_cpu = manifest.tensorrt is None
    if on_cpu and manifest.precision == "int8" and manifest.device.int8_dot_product and not here.int8_dot_product:
        raise ManifestMismatch(
            f"{folder} was built for a CPU with an 8-bit dot product ({manifest.device.name}); {here.name} has none, "
            "and its 16-bit sums would saturate",
            hint=f"rebuild it here: `{rebuild}`",
        )
    return manifest


def check_gpu(what: str | Path, manifest: Manifest, gpu: Gpu, tensorrt: str) -> None:
    """Compare an engine that TensorRT built with the GPU and the TensorRT that are here, before it is loaded.

    Args:
        what: The engine folder, for the message.
        manifest: Its manifest.
        gpu: The GPU that is here.
        tensorrt: ``tensorrt.__version__`` of the one that is here.

    Raises:
        ManifestMismatch: One of them does not fit. A driver newer than the one it was built with does.
    """
    built = manifest.tensorrt
    if built is None:
        raise ManifestMismatch(
            f"the manifest of {what} does not say which TensorRT and GPU it was built with, so it cannot be compared with "
            f"TensorRT {tensorrt} on {gpu.text}",
            hint=f"rebuild it here: `{manifest.rebuild}`",
        )
    fits_gpu = {
        "none": (built.gpu.name, built.gpu.compute_capability) == (gpu.name, gpu.compute_capability),
        "same-compute-capability": built.gpu.compute_capability == gpu.compute_capability,
        "ampere-plus": gpu.compute_capability >= (8, 0),
    }[built.hardware_compatibility]
    for fits, there, here in (
        (_fits_version(built, tensorrt), f"TensorRT {built.version}", f"TensorRT {tensorrt}"),
        (fits_gpu, _gpu_words(built.gpu), _gpu_words(gpu)),
        (
            built.gpu.driver <= gpu.driver,
            f"a driver for CUDA {_dotted(built.gpu.driver)}",
            f"an older one, for CUDA {_dotted(gpu.driver)}",
        ),
    ):
        if not fits:
            raise ManifestMismatch(
                f"{what} was built with {there}, this machine has {here}", hint=f"rebuild it here: `{manifest.rebuild}`"
            )


def _fits_version(built: TensorRtBuild, here: str) -> bool:
    if built.version == here or not built.is_version_compatible:
        return built.version == here
    old, new = (tuple(int(part) for part in version.split(".")[:2]) for version in (built.version, here))
    # within a major version and into the next one, never further and never back
    return old <= new and new[0] - old[0] <= (2 if old[0] == 8 else 1)


def _gpu_words(gpu: Gpu) -> str:
    return f"{gpu.name} (compute capability {_dotted(gpu.compute_capability)})"


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


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
