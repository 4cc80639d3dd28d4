"""Frames in, results out: an engine with everything its recipe says around it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from edgesod import assets, zoo
from edgesod.errors import BackendError, InputError, ManifestMismatch, UsageError
from edgesod.manifest import FILE_NAME, Manifest, check_manifest, read_manifest
from edgesod.processing.postprocess import postprocess
from edgesod.processing.preprocess import as_bgr, preprocess
from edgesod.recipe import Precision, Recipe, recipe_for
from edgesod.runtime.powers import StagesInputs, TimesStages
from edgesod.runtime.select import AUTO, check_backend, choose_backend, open_session
from edgesod.runtime.session import Session
from edgesod.threads import resolve_threads
from edgesod.types import Frame, Result, TensorSpec

if TYPE_CHECKING:
    from edgesod.stream import LiveStatistics, Source

DEFAULT_PRECISION: Precision = "int8"

_WARM_UP_RUNS = 2

log = logging.getLogger("edgesod.runtime")


class Runtime:
    """Find the salient object in frames.

    Args:
        engine: An engine folder, or the name of a shipped model. It is a folder when it is a path object, contains a path
            separator, or holds a manifest.
        precision: For a model name, whose built engine is run; ``int8`` where ``None``. ``fp32`` does without one: where
            none was built for the backend, it runs the shipped ONNX as it is. An engine folder has its own.
        backend: ``"auto"``, or the name of a backend that must be had. An engine folder has its own.
        threads: CPU threads; every physical core this process may use where ``None``.

    Attributes:
        recipe: What the engine is and what is done around it.
        precision: The recipe's.
        size_hw: Height and width of the network's input.
        backend: Name of the backend.
        threads: CPU threads of the network; ``None`` on a GPU, and for a session that was given.
        reason: Why that one, in a sentence that starts with its name.

    One frame at a time; threads that share a runtime wait for each other.

    Raises:
        InputError: There is no such engine or model, or its input is not one image or its output not one map.
        ManifestMismatch: The engine folder's files, this machine or the engine's tensors are not what its manifest says.
        BackendError: The backend cannot be had, or is not the one the engine was built for.
        UsageError: Another precision than the engine folder's was asked for, or there is no backend of that name.
    """

    def __init__(
        self,
        engine: str | os.PathLike[str],
        precision: Precision | None = None,
        backend: str = AUTO,
        threads: int | None = None,
    ) -> None:
        check_backend(backend)
        if _is_folder(engine):
            self._open_folder(Path(engine), precision, backend, threads)
            return
        recipe = recipe_for(str(engine), precision or DEFAULT_PRECISION)
        folder = assets.engines_root() / recipe.name
        if recipe.precision == "fp32":
            name, reason = choose_backend("fp32", backend)
            # TensorRT runs no ONNX, so its fp32 is built like the other precisions
            if name != "tensorrt" and not _is_built_for(name, folder, recipe):
                session = open_session(zoo.shipped(recipe.model).onnx, "fp32", name, threads)
                self._adopt(session, recipe, reason, resolve_threads(threads))
                return
        build = f"edgesod build --model {recipe.model} --{recipe.precision}" + (
            f" --backend {backend}" if backend != AUTO else ""
        )
        if not (folder / FILE_NAME).is_file():
            raise InputError(f"{recipe.name} has not been built: there is no engine in {folder}", hint=build)
        if not is_built_from_shipped(folder, recipe):
            raise ManifestMismatch(
                f"{folder} was not built from the {recipe.model} and the recipe that this version ships, or an older version built it",
                hint=f"`{build}`; or name the folder itself, to run what is in it",
            )
        self._open_folder(folder, recipe.precision, backend, threads)

    @classmethod
    def from_session(cls, session: Session, recipe: Recipe) -> Runtime:
        """Wrap a session, which then belongs to the runtime and is closed with it.

        Args:
            session: Takes one float32 ``(1, 3, h, w)`` of the recipe's size, or uint8 ``(1, H, W, 3)`` of its frames' where
                it names one; returns one float32 ``(1, 1, h, w)`` in [0, 1]. Under any names.
            recipe: What is done before and after.

        Raises:
            InputError: The session's inputs and outputs are something else.
        """
        runtime = cls.__new__(cls)
        runtime._adopt(session, recipe, f"{session.backend}: given as a session")
        return runtime

    @overload
    def __call__(self, image: NDArray[Any]) -> Result: ...

    @overload
    def __call__(self, image: Sequence[NDArray[Any]]) -> list[Result]: ...

    def __call__(self, image: NDArray[Any] | Sequence[NDArray[Any]]) -> Result | list[Result]:
        """Find the salient object in one frame, or in each of several.

        Args:
            image: uint8 BGR ``(H, W, 3)``, or anything :func:`~edgesod.processing.preprocess.as_bgr` takes; or a list or
                tuple of such.

        Returns:
            A result, or a list of as many; ``times_ms`` has ``preprocess``, ``inference`` and ``postprocess``.

        Raises:
            InputError: Not a picture, or not of the one size that the engine takes (:attr:`Recipe.frame_hw`).
            CheckFailed: The network gave values that are not finite.
            BackendError: The runtime is closed.
        """
        if isinstance(image, list | tuple):
            return [self._run(one) for one in image]
        return self._run(image)

    def stream(
        self,
        source: str | os.PathLike[str] | Source | Sequence[str | os.PathLike[str] | Source],
        *,
        steady: str = "",
        statistics: LiveStatistics | None = None,
    ) -> Iterator[Result]:
        """Yield a result with its ``frame`` for each frame of a source, which is closed at the end.

        Threads read and compute ahead; of a live source only the newest frame and the newest result are kept, of the others
        every one. Of several sources one frame is taken from each in turn, and ``result.frame.source`` says whose it is.

        Args:
            source: What :func:`~edgesod.stream.open_source` takes, or what it returned; or several of them.
            steady: How masks are held still, as ``edgesod run --steady`` takes it: ``"motion,area"``.
            statistics: Fed while it goes on, for another thread to look at.

        Raises:
            InputError: The source cannot be read.
            UsageError: ``steady`` names something else.
            SourceLost: A live source went away.
            DeviceError: The engine does not come back.
        """
        from edgesod.stream import open_source, stream_results  # of no concern to who brings own frames

        process = self._run_frame if not steady else _steadied(steady, self._run)
        several = source if isinstance(source, Sequence) and not isinstance(source, str) else [source]
        with ExitStack() as stack:
            opened = [stack.enter_context(open_source(one) if isinstance(one, (str, os.PathLike)) else one) for one in several]
            stack.pop_all()  # from here on the threads that read them close them
        yield from stream_results(opened, process, statistics=statistics)

    @property
    def facts(self) -> dict[str, str]:
        """What the backend says about where it runs (:attr:`Session.facts`): on a GPU its name, and why no graph is replayed."""
        return self._session.facts

    def warm_up(self) -> None:
        """Run a black frame, so that the first real one is as fast as the rest."""
        for _ in range(_WARM_UP_RUNS):
            self._run(np.zeros((*(self.recipe.frame_hw or self.size_hw), 3), np.uint8))

    def close(self) -> None:
        """Free the engine, after a frame that is under way; safe to call twice."""
        with self._lock:
            self._session.close()
            self._is_closed = True

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _open_folder(self, folder: Path, precision: Precision | None, backend: str, threads: int | None) -> None:
        manifest = check_manifest(folder)
        if precision not in (None, manifest.precision):
            raise UsageError(
                f"{folder} is an {manifest.precision} engine, {precision} was asked for", hint="name one of the two"
            )
        if backend not in (AUTO, manifest.backend):
            raise BackendError(
                f"{folder} was built for {manifest.backend}, {backend} was asked for",
                hint=f"edgesod build --model {manifest.recipe.model} --{manifest.precision} --backend {backend}",
            )
        name, _ = choose_backend(manifest.precision, manifest.backend)
        session = open_session(folder / manifest.engine_file, manifest.precision, name, threads, cache=folder)
        try:
            _check_manifest_tensors(folder, manifest, session)
        except ManifestMismatch:
            session.close()
            raise
        reason = f"{name}: what {folder.name} was built and measured with"
        self._adopt(session, manifest.recipe, reason, None if name == "tensorrt" else resolve_threads(threads))

    def _adopt(self, session: Session, recipe: Recipe, reason: str, threads: int | None = None) -> None:
        try:
            _check_tensors(session, recipe)
        except InputError:
            session.close()
            raise
        self.recipe = recipe
        self.precision = recipe.precision
        self.size_hw = recipe.size_hw
        self.backend = session.backend
        self.threads = threads
        self.reason = reason
        self._session = session
        self._input, self._output = session.inputs[0].name, session.outputs[0].name
        self._timed = session if isinstance(session, TimesStages) else None
        staged = session.staging if isinstance(session, StagesInputs) else {}
        self._tensor = staged.get(self._input, np.empty(session.inputs[0].shape, np.float32))
        self._lock = threading.Lock()
        self._is_closed = False
        log.debug("%s opened, %s", recipe.name, reason)

    def _run_frame(self, frame: Frame) -> Result:
        result = self._run(frame.image)
        result.frame = frame
        return result

    def _run(self, image: Any) -> Result:
        with self._lock:
            if self._is_closed:
                raise BackendError("this runtime is closed", hint="open another one")
            began = time.perf_counter()
            bgr = as_bgr(image)
            tensor = self._prepare(bgr)
            prepared = time.perf_counter()
            output = self._session.run({self._input: tensor})[self._output]
            inferred = time.perf_counter()
            result = postprocess(output, self.recipe, (bgr.shape[0], bgr.shape[1]))
            ended = time.perf_counter()
        result.times_ms = {
            "preprocess": (prepared - began) * 1e3,
            "inference": (inferred - prepared) * 1e3,
            "postprocess": (ended - inferred) * 1e3,
        }
        if self._timed is not None:
            result.times_ms |= self._timed.times_ms
        return result

    def _prepare(self, bgr: NDArray[np.uint8]) -> NDArray[Any]:
        """Return what the network takes: the frame itself where it does the rest, else the tensor made of it."""
        wanted = self.recipe.frame_hw
        if wanted is None:
            return preprocess(bgr, self.recipe, self._tensor)
        if bgr.shape[:2] != wanted:
            raise InputError(
                f"{self.recipe.name} takes frames of {wanted[1]}×{wanted[0]} alone, this one is {bgr.shape[1]}×{bgr.shape[0]}",
                hint="have the source give that size, or build an engine for any size: leave out --frame-input",
            )
        return bgr[None]


def _steadied(text: str, infer: Callable[[NDArray[np.uint8]], Result]) -> Callable[[Frame], Result]:
    """Return what makes a result of a frame, steadied with those of its source that came before."""
    from edgesod.processing.steady import Steady, parse_steady

    settings = parse_steady(text)
    steadies: defaultdict[int, Steady] = defaultdict(lambda: Steady(settings))
    return lambda frame: steadies[frame.source](frame, infer)


def is_built_from_shipped(folder: Path, recipe: Recipe) -> bool:
    """Say whether an engine folder was built from the shipped weights by the shipped recipe, and by no older builder."""
    return read_manifest(folder).is_from(recipe, zoo.shipped(recipe.model).onnx)


def _is_built_for(backend: str, folder: Path, recipe: Recipe) -> bool:
    """Say whether there is an engine folder from the shipped weights and recipe for a backend."""
    if not (folder / FILE_NAME).is_file():
        return False
    return read_manifest(folder).backend == backend and is_built_from_shipped(folder, recipe)


def _is_folder(engine: str | os.PathLike[str]) -> bool:
    if not isinstance(engine, str):
        return True
    return os.sep in engine or "/" in engine or (Path(engine) / FILE_NAME).is_file()


def _check_tensors(session: Session, recipe: Recipe) -> None:
    """Raise unless the network takes one image of the recipe's size, or one of its frames, and returns one map."""
    wanted_out = (1, 1)
    wanted_in, kind = ((1, 3, *recipe.size_hw), "float32") if recipe.frame_hw is None else ((1, *recipe.frame_hw, 3), "uint8")
    fits_in = len(session.inputs) == 1 and (session.inputs[0].shape, session.inputs[0].dtype) == (wanted_in, kind)
    if not fits_in:
        raise InputError(
            f"{recipe.name} takes one {kind} image {wanted_in}, this network takes {_listed(session.inputs)}",
            hint="export it at the recipe's size: `edgesod export`",
        )
    output = session.outputs[0] if len(session.outputs) == 1 else None
    if output is None or len(output.shape) != 4 or output.shape[:2] != wanted_out or output.dtype != "float32":
        raise InputError(
            f"a saliency network returns one float32 map (1, 1, h, w), this one returns {_listed(session.outputs)}",
            hint="export the fused map alone: `edgesod export`",
        )


def _check_manifest_tensors(folder: Path, manifest: Manifest, session: Session) -> None:
    for what, found, recorded in (
        ("inputs", session.inputs, manifest.inputs),
        ("outputs", session.outputs, manifest.outputs),
    ):
        if found != recorded:
            raise ManifestMismatch(
                f"the manifest of {folder} says the {what} are {_listed(recorded)}, the engine has {_listed(found)}",
                hint=f"rebuild it: `{manifest.rebuild}`",
            )


def _listed(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{spec.name} {spec.dtype} {spec.shape}" for spec in specs) or "nothing"
