"""Open the runtime that ``--engine``, or ``--model`` with a precision, means."""

from __future__ import annotations

from pathlib import Path

from edgesod.cli import _output
from edgesod.cli._source import DEFAULT_MODEL
from edgesod.errors import UsageError
from edgesod.recipe import Precision
from edgesod.runtime import Runtime


def open_runtime(
    engine: Path | None,
    model: str | None,
    precision: Precision | None,
    backend: str = "auto",
    threads: int | None = None,
) -> Runtime:
    """Open an engine folder, or a model at a precision; say which backend was chosen and why.

    Args:
        engine: An engine folder; excludes ``model`` and ``precision``.
        model: Name of a model; U²-NetP when left out.
        precision: INT8 when left out.
        backend: ``"auto"`` or the backend that must be had.
        threads: CPU threads.
    """
    if engine is not None:
        if model is not None or precision is not None:
            raise UsageError("--engine names model and precision already", hint=f"--engine {engine} alone")
        runtime = Runtime(engine, backend=backend, threads=threads)
    else:
        runtime = Runtime(model or DEFAULT_MODEL, precision=precision or "int8", backend=backend, threads=threads)
    _output.note(f"{runtime.recipe.model} {runtime.precision}; backend {runtime.reason}")
    return runtime


def build_default_if_missing(backend: str = "auto", threads: int | None = None) -> None:
    """Build the engine that :func:`open_runtime` takes when nothing is named, where it is not there yet or has become stale.

    For the main thread: what hears Ctrl-C there takes the half-built folder away.
    """
    from edgesod import assets, zoo
    from edgesod.builder import build
    from edgesod.manifest import FILE_NAME
    from edgesod.recipe import recipe_for
    from edgesod.runtime import is_built_from_shipped

    recipe = recipe_for(DEFAULT_MODEL, "int8")
    folder = assets.engines_root() / recipe.name
    if (folder / FILE_NAME).is_file():
        if is_built_from_shipped(folder, recipe):
            return
        _output.note(
            f"no engine was named and {folder} belongs to other weights, another recipe or an older edgesod: building it anew"
        )
    else:
        _output.note(f"no engine was named and {folder} is not there yet: building it")
    with _output.progress("build") as update:
        build(
            recipe,
            zoo.shipped(DEFAULT_MODEL).onnx,
            backend=backend,
            threads=threads,
            on_step=_output.note,
            on_progress=update,
        )
