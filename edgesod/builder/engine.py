"""Build an engine folder: typed ONNX, gate, manifest, all of it or nothing."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from edgesod import __version__, assets
from edgesod.errors import InputError, StaleError, UsageError
from edgesod.files import replacing_folder, sha256_of
from edgesod.manifest import Manifest, this_device, versions_here
from edgesod.recipe import Recipe
from edgesod.runtime import Runtime, choose_backend, open_session

from .gate import GateSet, measure, verdict

log = logging.getLogger("edgesod.builder")

_FP32, _TYPED, _TABLE = "model.onnx", "engine.onnx", "calibration.json"
_PACKAGES = ("onnx", "onnxruntime", "openvino", "numpy", "opencv-python")


def build(
    recipe: Recipe,
    onnx: str | Path,
    *,
    table: str | Path | None = None,
    verify: str | Path | None = None,
    backend: str = "auto",
    threads: int | None = None,
    root: str | Path | None = None,
    on_step: Callable[[str], None] = log.info,
    on_progress: Callable[[int, int | None], None] = lambda _done, _total: None,
) -> Path:
    """Build the engine of a recipe from an FP32 ONNX and gate it against FP32 on real images.

    Args:
        recipe: What to build.
        onnx: FP32 ONNX with one image input ``(1, 3, H, W)`` of the recipe's size and one map output ``(1, 1, H, W)``.
        table: For INT8: a calibration table made from this very ONNX, or a folder of images to calibrate on; the shipped
            table of the recipe's model when left out.
        verify: Folder of images for the gate, with ground truth when it holds ``images/`` and ``masks/``; without it, the
            photographs that scikit-image carries.
        backend: ``"auto"`` or the name of a backend that must be had.
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
        CheckFailed: The engine gave non-finite values or drifted past the recipe's bounds.
        OutputError: The folder could not be written.
    """
    onnx = Path(onnx)
    if not onnx.is_file():
        raise InputError(f"there is no ONNX file at {onnx}", hint="`edgesod models` lists what is shipped; or give --onnx FILE")
    _require_one_file(onnx)
    if table is not None and recipe.precision != "int8":
        raise UsageError(f"calibration is for INT8, {recipe.name} has no use for it", hint="leave out --calib, or build --int8")
    gate_set = GateSet(verify)
    name, reason = choose_backend(recipe.precision, backend)
    on_step(f"backend {reason}")
    folder = Path(root or assets.engines_root()) / recipe.name
    with replacing_folder(folder) as work:
        shutil.copyfile(onnx, work / _FP32)
        hashes = {_FP32: sha256_of(work / _FP32)}
        engine_file = _write_typed(recipe, onnx, work, table, on_step, on_progress)
        for file in work.iterdir():
            hashes[file.name] = sha256_of(file)
        on_step(f"gate: {len(gate_set)} images, {gate_set.description}")
        session = open_session(work / engine_file, recipe.precision, name, threads)
        inputs, outputs = session.inputs, session.outputs
        with (
            Runtime.from_session(session, recipe) as engine,
            Runtime.from_session(open_session(work / _FP32, "fp32", "onnxruntime", threads), recipe) as reference,
        ):
            report = measure(engine, reference, gate_set, on_progress)
        verdict(report, recipe)
        Manifest(
            recipe=recipe,
            backend=name,
            engine_file=engine_file,
            onnx_file=_FP32,
            sha256=hashes,
            device=this_device(),
            versions={"edgesod": __version__} | versions_here(*_PACKAGES),
            inputs=inputs,
            outputs=outputs,
            gate=report,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        ).write(work)
    return folder


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


def _write_typed(
    recipe: Recipe,
    onnx: Path,
    work: Path,
    table: str | Path | None,
    on_step: Callable[[str], None],
    on_progress: Callable[[int, int | None], None],
) -> str:
    """Write the ONNX of the recipe's precision into ``work`` and return its file name."""
    # imported here: reading and writing ONNX costs a fifth of a second that a loaded engine never needs
    from edgesod.calibration import calibrate
    from edgesod.calibration.fp16 import write_fp16
    from edgesod.calibration.qdq import write_qdq
    from edgesod.calibration.table import check_table, read_table

    if recipe.precision in ("fp32", "bf16"):
        return _FP32
    if recipe.precision == "fp16":
        on_step("writing the FP16 graph")
        write_fp16(work / _FP32, work / _TYPED)
        return _TYPED
    path = Path(table) if table is not None else _shipped_table(recipe)
    if path.is_dir():
        on_step(f"calibrating on {path}")
        ranges = calibrate(work / _FP32, recipe, path, on_progress=on_progress)
    else:
        ranges = read_table(path)
        check_table(ranges, onnx, recipe)
    ranges.write(work / _TABLE)
    on_step(f"writing the INT8 graph ({recipe.quantisation.method} ranges of {ranges.num_images} images)")
    write_qdq(
        work / _FP32,
        work / _TYPED,
        ranges,
        recipe.quantisation.method,
        scheme="cpu",
        float_nodes=recipe.quantisation.float_nodes,
        reduce_weights=not this_device().int8_dot_product,
    )
    return _TYPED


def _shipped_table(recipe: Recipe) -> Path:
    path = assets.tables() / f"{recipe.stem}.json"
    if not path.is_file():
        raise StaleError(
            f"no calibration table is shipped for {recipe.stem}",
            hint="the same command with --calib DIR, a folder of 32 or more images like the ones it will see",
        )
    return path
