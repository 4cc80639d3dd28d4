"""What is written down while a run goes on: ``log.jsonl`` and TensorBoard's event files, both by images seen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from edgesod.errors import InputError, OutputError
from edgesod.files import write_atomically
from trainer.losses import LossParts


class RunLog:
    """The log of a run folder, open for writing; a context manager.

    ``log.jsonl`` holds an object a line: losses, learning rate and speed with ``"loss"``, hold-out scores without. The
    same numbers are TensorBoard's curves: ``loss/total``, ``loss/<output>/<term>``, ``lr``, ``images_per_s`` and
    ``hold-out/<score>``. What a killed run wrote after its last checkpoint is dropped from both, since it is done again.

    Args:
        run: The run's folder; made if need be.
        seen: Images seen when the run begins or goes on.

    Raises:
        OutputError: The disk is full, or the place cannot be written; so do the methods.
    """

    def __init__(self, run: Path, seen: int) -> None:
        self._path = run / "log.jsonl"
        try:
            run.mkdir(parents=True, exist_ok=True)
            if self._path.exists():
                kept = [entry for entry in read_log(self._path) if entry["seen"] <= seen]
                write_atomically(self._path, "".join(_line(entry) for entry in kept).encode())
            self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=seen + 1)
        except OSError as error:
            raise _cannot_write(run, error) from error

    def step(self, seen: int, loss: LossParts, rate: float, images_per_s: float) -> None:
        """Log a step."""
        parts = {name: round(float(value), 5) for name, value in loss.parts.items()}
        total = round(float(loss.total), 5)
        speed = float(f"{images_per_s:.4g}")  # not so many places: of what is slow they would leave nothing
        self._append({"seen": seen, "loss": total, "lr": rate, "images_per_s": speed, **parts})
        curves = {f"loss/{name}": value for name, value in parts.items()}
        self._draw(seen, {"loss/total": total, "lr": rate, "images_per_s": images_per_s, **curves})

    def scores(self, seen: int, size: int, scores: Mapping[str, float]) -> None:
        """Log what the hold-out scored at a picture size."""
        self._append({"seen": seen, "validation_size": size, **{name: round(value, 5) for name, value in scores.items()}})
        self._draw(seen, {f"hold-out/{name}": value for name, value in scores.items()} | {"hold-out/size": size})

    def close(self) -> None:
        """Write what is left to write."""
        try:
            self._writer.close()
        except OSError as error:
            raise _cannot_write(self._path.parent, error) from error

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _append(self, entry: dict[str, float]) -> None:
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(_line(entry))
        except OSError as error:
            raise _cannot_write(self._path, error) from error

    def _draw(self, seen: int, curves: Mapping[str, float]) -> None:
        try:
            for name, value in curves.items():
                self._writer.add_scalar(name, value, seen)
        except OSError as error:
            raise _cannot_write(self._path.parent, error) from error


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a ``log.jsonl``, oldest first; a line that a killed run left half-written is none.

    Raises:
        InputError: It cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    return [entry for line in lines if (entry := _entry(line)) is not None]


def _entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("seen"), int) else None


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry) + "\n"


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write {path}: {error.strerror or error}", hint="make room, then --resume; the last checkpoint is intact"
    )
