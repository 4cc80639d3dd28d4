"""``--config FILE``: the options of a command from a TOML file, under the names they have on the command line."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import typer

from edgesod.errors import UsageError
from edgesod.files import read_toml


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the file's values the defaults of the command's options; what stands on the command line comes first.

    Raises:
        InputError: The file cannot be read.
        UsageError: It names something that is no option of the command.
    """
    if path is None or context.resilient_parsing:
        return path
    named = {
        name.lstrip("-"): parameter
        for parameter in context.command.params
        for name in parameter.opts
        if name not in ("--config", "--help", "-h")
    }
    defaults: dict[str, Any] = {}
    for key, value in read_toml(path).items():
        name = key.replace("_", "-") if key not in named else key
        if name not in named:
            close = difflib.get_close_matches(name, named, n=1)
            raise UsageError(
                f"{path}: {context.info_name} has no option {key!r}",
                hint=f"did you mean {close[0]}?" if close else f"one of: {', '.join(sorted(named))}",
            )
        parameter = named[name]
        takes_several = getattr(parameter, "multiple", False) or parameter.nargs == -1
        if isinstance(value, dict) or (isinstance(value, list) and not takes_several):
            raise UsageError(f"{path}: {key} takes one value, not {value!r}")
        defaults[str(parameter.name)] = value if isinstance(value, list) or not takes_several else [value]
    context.default_map = {**(context.default_map or {}), **defaults}
    return path
