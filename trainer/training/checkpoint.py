"""Checkpoints that are whole or not there: safetensors plus a JSON record, in a folder renamed into place.

A run folder holds ``checkpoint-<images seen>/`` with ``model.safetensors``, ``ema.safetensors``, ``optimizer.safetensors``
and ``record.json``, and ``best/`` (:func:`keep_best`). A folder is written under a temporary name, flushed to disk and renamed, so
a process killed at any moment leaves the one before it intact; leftovers are cleared at the next start. The two weight files say
in their header which network they belong to and what it was fed (:func:`trainer.networks.weights_metadata`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgesod.errors import InputError, OutputError
from edgesod.files import read_json, replacing_folder
from trainer.networks import WeightsMetadata

from .ema import Ema

_NAME = re.compile(r"checkpoint-(\d+)")
_KEEP = 2
BEST = "best"
"""Folder of the averaged weights that the hold-out liked most."""


def save_checkpoint(
    run: Path,
    seen: int,
    model: nn.Module,
    ema: Ema,
    optimizer: torch.optim.Optimizer,
    record: dict[str, Any],
    about: WeightsMetadata,
) -> Path:
    """Write a checkpoint after ``seen`` images and drop all but the newest two; return its folder.

    Raises:
        OutputError: The disk is full, or the place cannot be written. The checkpoint before is intact.
    """
    final = run / f"checkpoint-{seen:09d}"
    if final in checkpoints(run):
        return final  # a run that ends where it last saved
    temporary = run / f".{final.name}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_file(_plain(model.state_dict()), temporary / "model.safetensors", about.to_strings())
        save_file(_plain(ema.module.state_dict()), temporary / "ema.safetensors", about.to_strings())
        save_file(_flatten(optimizer.state_dict()), temporary / "optimizer.safetensors")
        (temporary / "record.json").write_text(json.dumps(record | {"images_seen": seen}, indent=1), encoding="utf-8")
        for file in temporary.iterdir():
            _flush(file)
        _flush(temporary)
        _remove(final)  # there only if it is not whole
        os.replace(temporary, final)
        _flush(run)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OutputError(
            f"cannot write the checkpoint {final}: {error}",
            hint="make room or choose another --out; the last checkpoint is intact",
        ) from error
    for old in checkpoints(run)[:-_KEEP]:
        _remove(old)
    return final


def keep_best(run: Path, ema: nn.Module, record: dict[str, Any], about: WeightsMetadata) -> None:
    """Keep averaged weights in ``best/`` of a run when none of the same picture size had a lower MAE on the hold-out.

    Args:
        run: The run's folder.
        ema: The network that was scored.
        record: ``images_seen``, ``size`` and the hold-out's ``scores``; written beside the weights.
        about: For the weights' header.

    Raises:
        OutputError: The disk is full, or the place cannot be written; what was the best is intact.
    """
    best = run / BEST
    if (best / "record.json").is_file():
        before = read_json(best / "record.json")
        if before["size"] == record["size"] and before["scores"]["mae"] <= record["scores"]["mae"]:
            return
    try:
        with replacing_folder(best) as folder:
            save_file(_plain(ema.state_dict()), folder / "ema.safetensors", about.to_strings())
            (folder / "record.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    except SafetensorError as error:
        raise OutputError(
            f"cannot write {best}: {error}", hint="make room, then --resume; the last checkpoint is intact"
        ) from error


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record of a checkpoint folder: at least ``recipe`` and ``images_seen``.

    Raises:
        InputError: It is missing or damaged.
    """
    record = read_json(folder / "record.json")
    if not isinstance(record.get("recipe"), dict) or not isinstance(record.get("images_seen"), int):
        raise InputError(f"{folder / 'record.json'} is not the record of a checkpoint")
    return record


def load_checkpoint(folder: Path, model: nn.Module, ema: Ema, optimizer: torch.optim.Optimizer) -> None:
    """Load a checkpoint folder into the three.

    Raises:
        InputError: A file is missing or damaged, or belongs to another network.
    """
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
        ema.module.load_state_dict(load_file(folder / "ema.safetensors"))
        optimizer.load_state_dict(_unflatten(load_file(folder / "optimizer.safetensors"), optimizer.state_dict()))
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise InputError(f"{folder} is not a checkpoint of this network: {error}") from error
    # files hold plain rows; in the parameters' own layout the next step is as fast, and to the bit what it would have been
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter).copy_(value)


def checkpoints(run: Path) -> list[Path]:
    """Return the whole checkpoints of a run, oldest first."""
    found = [p for p in run.glob("checkpoint-*") if _NAME.fullmatch(p.name) and (p / "record.json").is_file()]
    return sorted(found, key=lambda p: int(p.name.split("-")[1]))


def clear_leftovers(run: Path) -> None:
    """Remove what a killed process left half-written."""
    for leftover in run.glob(".checkpoint-*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)


def _remove(folder: Path) -> None:
    # under another name first: a process killed in between would leave a checkpoint with files missing
    doomed = folder.with_name(f".{folder.name}.old.tmp")
    with suppress(OSError):
        os.replace(folder, doomed)
        shutil.rmtree(doomed)


def _plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().contiguous() for name, value in state.items()}


def _flatten(state: dict[str, Any]) -> dict[str, Tensor]:
    return {
        f"{index}.{name}": torch.as_tensor(value).detach().contiguous()
        for index, values in state["state"].items()
        for name, value in values.items()
        if value is not None
    }


def _unflatten(flat: dict[str, Tensor], like: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    return {"state": state, "param_groups": like["param_groups"]}


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
