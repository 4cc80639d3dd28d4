"""``--config FILE``: the options of a command from a TOML file, under the names they have on the command line."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from edgesod.cli import _output
from edgesod.errors import UsageError
from edgesod.files import read_toml

_ONE_OF_A_KIND = (
    frozenset(("source", "camera", "video", "image")),
    frozenset(("fp32", "fp16", "bf16", "int8", "engine")),
    frozenset(("engine", "model")),
)
"""Options that speak of the same thing: one on the command line goes before those of the file."""


_FILE = "edgesod.config"


class ConfiguredCommand(TyperCommand):
    """A command with ``--config``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line and the file; of a value that is wrong, say so where it stands in the file."""
        raw = [word for word in args if word.startswith("-?")]  # pictures on standard input and their size: no option
        if raw and "--" not in args:
            args = [*(word for word in args if word not in raw), "--", *raw]
        try:
            words: list[str] = super().parse_args(ctx, args)
            return words
        except Exception as error:  # which class typer raises changes between its versions
            parameter: Any = getattr(error, "param", None)
            source = ctx.get_parameter_source(parameter.name) if parameter is not None else None
            if source is None or source.name != "DEFAULT_MAP":
                raise
            key = parameter.opts[0].lstrip("-")
            raise UsageError(f"{ctx.meta[_FILE]}: {key}: {getattr(error, 'message', error)}", hint="mend the file") from error

    def invoke(self, ctx: Any) -> Any:
        """Call the command without what the file says of things the command line speaks of under another name."""
        typed = {name for name in ctx.params if _is_typed(ctx, name)}
        if "source" in ctx.params and "source" not in typed:
            # an argument that takes several does not look at the file by itself
            ctx.params["source"] = (ctx.default_map or {}).get("source")
        for names in _ONE_OF_A_KIND:
            if names & typed:
                ctx.params.update(dict.fromkeys((names - typed) & set(ctx.params)))
        return super().invoke(ctx)


def _is_typed(context: Any, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE" and context.params[name] not in (None, (), [])


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
    said = read_toml(path)
    context.meta[_FILE] = path
    if "json" in (said.get("log-format"), said.get("log_format")):
        _output.log_as_json()  # already here, for what is wrong with the rest
    for key, value in said.items():
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
