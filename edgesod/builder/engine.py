"""Build an engine folder: typed ONNX, gate, manifest, all of it or nothing."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgesod import __version__, assets, zoo
from edgesod.errors import InputError, UsageError
from edgesod.evaluation.pairs import Places, places_of
from edgesod.files import replacing_folder, sha256_of
from edgesod.manifest import REVISION, Manifest, TensorRtBuild, this_device, versions_here
from edgesod.recipe import Recipe
from edgesod.runtime import Runtime, Session, choose_backend, open_session
from edgesod.runtime.select import AUTO

from .gate import GateSet, measure, verdict
from .job import FP32, Job, Maker, is_of_images, make_for_cpu

if TYPE_CHECKING:
    from .tensorrt_policy import TensorRtOptions

log = logging.getLogger("edgesod.builder")

_PACKAGES = ("onnx", "onnxruntime", "openvino", "numpy", "opencv-python")


def build(
    recipe: Recipe,
    onnx: str | Path,
    *,
    table: Places | None = None,
    verify: Places | None = None,
    backend: str = "auto",
    tensorrt: TensorRtOptions | None = None,
    threads: int | None = None,
    root: str | Path | None = None,
    on_step: Callable[[str], None] = log.info,
    on_progress: Callable[[int, int | None], None] = lambda _done, _total: None,
) -> Path:
    """Build the engine of a recipe from an FP32 ONNX and gate it against FP32 on real images.

    Args:
        recipe: What to build.
        onnx: FP32 ONNX with one image input ``(1, 3, H, W)`` of the recipe's size and one map output ``(1, 1, H, W)``.
        table: A calibration table made from this very ONNX, or images to calibrate on, a folder or tar or several; the
            shipped table of the recipe's model when left out. INT8 takes its scales from it, and FP16 keeps layers near the
            end of its range in FP32; not so where TensorRT makes FP16 by a flag (weak typing, as below 10.12), which refuses
            a table. For implicit INT8 also a calibration cache of TensorRT's (``.cache``).
        verify: Images for the gate, or a set with ground truth, one place or several (:class:`~edgesod.builder.gate.GateSet`);
            without it, the photographs that scikit-image carries.
        backend: ``"auto"`` or the name of a backend that must be had.
        tensorrt: What to ask TensorRT for, where that is the backend.
        threads: CPU threads to measure with.
        root: Where engine folders are kept.
        on_step: Told each step in a sentence.
        on_progress: Told ``(done, total)`` within the long steps.

    Returns:
        The engine folder, ``<root>/<recipe name>``; an older one of that name is replaced only by a build that passed.

    Raises:
        InputError: ``onnx``, ``table`` or ``verify`` cannot be used.
        StaleError: The calibration table was made for another ONNX.
        BackendError: The backend cannot be had, or not at this precision.
        BuildError: TensorRT could not build it, or built another precision.
        UsageError: Options that do not fit together, a table among several places of images too.
        CheckFailed: The engine gave non-finite values or drifted past the recipe's bounds.
        OutputError: The folder could not be written.
    """
    onnx = Path(onnx)
    if not onnx.is_file():
        raise InputError(f"there is no ONNX file at {onnx}", hint="`edgesod models` lists what is shipped; or give --onnx FILE")
    _require_one_file(onnx)
    calib = places_of(table or ())
    if calib and recipe.precision not in ("int8", "fp16"):
        raise UsageError(
            f"calibration is for INT8 and FP16, {recipe.name} has no use for it", hint="leave out --calib, or build --int8"
        )
    if len(calib) > 1 and (others := [path for path in calib if not is_of_images(path)]):
        raise UsageError(
            f"{others[0]} is no folder or tar of images, and a table is not for several",
            hint="--calib TABLE alone, or --calib once for each part of a set",
        )
    gate_set = GateSet(verify)
    name, reason = choose_backend(recipe.precision, backend)
    if tensorrt is not None and name != "tensorrt":
        raise UsageError(f"the options for TensorRT mean nothing to {name}", hint="add --backend tensorrt, or leave them out")
    on_step(f"backend {reason}")
    folder = Path(root or assets.engines_root()) / recipe.name
    with replacing_folder(folder) as work:
        shutil.copyfile(onnx, work / FP32)
        hashes: dict[str, str] = {}
        job = Job(recipe, onnx, work, tuple(calib), on_step, on_progress)
        made = _maker(name, tensorrt)(job)
        for file in work.iterdir():
            hashes[file.name] = sha256_of(file)
        on_step(f"gate: {len(gate_set)} images, {gate_set.description}")
        session = _open(work / made.engine_file, made.tensorrt, recipe, name, threads)
        inputs, outputs = session.inputs, session.outputs
        any_frame = recipe.model_copy(update={"frame_hw": None})
        with (
            Runtime.from_session(session, recipe) as engine,
            Runtime.from_session(open_session(work / FP32, "fp32", "onnxruntime", threads), any_frame) as reference,
        ):
            report = measure(engine, reference, gate_set, on_progress)
        verdict(report, recipe)
        Manifest(
            revision=REVISION,
            recipe=recipe,
            backend=name,
            engine_file=made.engine_file,
            onnx_file=FP32,
            sha256=hashes,
            device=this_device(),
            tensorrt=made.tensorrt,
            given=_given(recipe, onnx, calib, backend),
            versions={"edgesod": __version__} | versions_here(*_PACKAGES),
            inputs=inputs,
            outputs=outputs,
            gate=report,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        ).write(work)
    return folder


def _given(recipe: Recipe, onnx: Path, calib: Sequence[Path], backend: str) -> tuple[str, ...]:
    """Return the words of ``edgesod build`` for what the manifest does not say elsewhere; of TensorRT it does."""
    is_shipped = recipe.model in zoo.names() and sha256_of(onnx) == sha256_of(zoo.shipped(recipe.model).onnx)
    words = (
        f"--backend {backend}" if backend not in (AUTO, "tensorrt") else "",
        "" if is_shipped else "--onnx FILE",
        "--calib FILE" if calib else "",
    )
    return tuple(word for word in words if word)


def _maker(backend: str, tensorrt: TensorRtOptions | None) -> Maker:
    """Return what makes the engine file of a backend."""
    if backend != "tensorrt":
        return make_for_cpu
    from .tensorrt_make import make_plan
    from .tensorrt_policy import TensorRtOptions

    return partial(make_plan, options=tensorrt or TensorRtOptions())


def _open(path: Path, built: TensorRtBuild | None, recipe: Recipe, backend: str, threads: int | None) -> Session:
    """Open an engine that has no manifest yet."""
    if built is None:
        return open_session(path, recipe.precision, backend, threads, cache=path.parent)
    from edgesod.runtime.tensorrt_session import TensorRtSession

    return TensorRtSession(path, built=built)


def _require_one_file(path: Path) -> None:
    """Refuse an ONNX whose weights lie in another file: hashes and the engine folder know one file."""
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's errors share no base with OSError, and their module moves between versions
        raise InputError(f"{path} cannot be read as ONNX: {error}") from error
    outside = [t.name for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    if outside:
        raise InputError(
            f"{path} keeps {len(outside)} of its weights in another file",
            hint="save it as one: onnx.save(onnx.load(path), path, save_as_external_data=False)",
        )
