"""Checkpoints that are whole or not there: safetensors plus a JSON record, in a folder renamed into place.

A run folder holds ``checkpoint-<images seen>/`` with ``model.safetensors``, ``ema.safetensors``, ``optimizer.safetensors``
and ``record.json``. A folder is written under a temporary name, flushed to disk and renamed, so a process killed at any
moment leaves the one before it intact; leftovers are cleared at the next start.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgesod.errors import InputError, OutputError

from .ema import Ema

_NAME = re.compile(r"checkpoint-(\d+)")
_KEEP = 2


def save_checkpoint(
    run: Path, seen: int, model: nn.Module, ema: Ema, optimizer: torch.optim.Optimizer, record: dict[str, Any]
) -> Path:
    """Write a checkpoint after ``seen`` images and drop all but the newest two; return its folder."""
    final = run / f"checkpoint-{seen:09d}"
    temporary = run / f".{final.name}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_file(_plain(model.state_dict()), temporary / "model.safetensors")
        save_file(_plain(ema.module.state_dict()), temporary / "ema.safetensors")
        save_file(_flatten(optimizer.state_dict()), temporary / "optimizer.safetensors")
        (temporary / "record.json").write_text(json.dumps(record | {"images_seen": seen}, indent=1), encoding="utf-8")
        for file in temporary.iterdir():
            _flush(file)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
        _flush(run)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OutputError(
            f"cannot write the checkpoint {final}: {error}",
            hint="make room or choose another --out; the last checkpoint is intact",
        ) from error
    for old in checkpoints(run)[:-_KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def load_checkpoint(folder: Path, model: nn.Module, ema: Ema, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Load a checkpoint folder into the three and return its record."""
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
        ema.module.load_state_dict(load_file(folder / "ema.safetensors"))
        optimizer.load_state_dict(_unflatten(load_file(folder / "optimizer.safetensors"), optimizer.state_dict()))
        record: dict[str, Any] = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        return record
    except (OSError, SafetensorError, RuntimeError, json.JSONDecodeError) as error:
        raise InputError(f"{folder} is not a checkpoint of this network: {error}") from error


def checkpoints(run: Path) -> list[Path]:
    """Return the whole checkpoints of a run, oldest first."""
    found = [p for p in run.glob("checkpoint-*") if _NAME.fullmatch(p.name) and (p / "record.json").is_file()]
    return sorted(found, key=lambda p: int(p.name.split("-")[1]))


def clear_leftovers(run: Path) -> None:
    """Remove what a killed process left half-written."""
    for leftover in run.glob(".checkpoint-*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)


def _plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().contiguous() for name, value in state.items()}


def _flatten(state: dict[str, Any]) -> dict[str, Tensor]:
    return {
        f"{index}.{name}": torch.as_tensor(value).detach().contiguous()
        for index, values in state["state"].items()
        for name, value in values.items()
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
