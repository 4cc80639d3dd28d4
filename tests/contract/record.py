"""What each version of TensorRT really has: the committed records, and Python signatures out of their text."""

from __future__ import annotations

import ast
import inspect
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

RECORDS = Path(__file__).parent / "records"
VERSIONS = sorted((path.stem for path in RECORDS.glob("*.json")), key=lambda v: [int(part) for part in v.split(".")])
"""``8.5.3.1`` … ``11.4.0.106``, oldest first."""


@dataclass(frozen=True)
class Record:
    """One version's API, made by ``scripts/record_tensorrt_api.py`` from the real module.

    Attributes:
        version: As ``tensorrt.__version__`` says it.
        classes: By name (``ILogger.Severity`` is nested). An enum has ``values``; any other class has ``bases``,
            ``methods`` (name → signatures, ``__init__`` only where there is a constructor), ``properties`` (name → type),
            ``settable``, ``special`` methods, and ``constants``: members of an enum that it repeats.
        functions: Name → signatures; none is known where the function is written in Python.
        constants: ``float16`` and the like → member of ``DataType``.
    """

    version: str
    classes: dict[str, Any]
    functions: dict[str, list[str]]
    constants: dict[str, str]

    @property
    def number(self) -> tuple[int, int]:
        """Major and minor, for what changed its behaviour and not its name."""
        major, minor, *_ = self.version.split(".")
        return int(major), int(minor)


@cache
def load(version: str) -> Record:
    return Record(**json.loads((RECORDS / f"{version}.json").read_text(encoding="utf-8")))


@cache
def signature_of(text: str) -> inspect.Signature:
    """``(a: int, b: Dims = ...) -> bool`` as a signature whose annotations are the types' text; self is not in it."""
    function = ast.parse(f"def f{text}: ...").body[0]
    assert isinstance(function, ast.FunctionDef)
    names = function.args.args
    defaults = [inspect.Parameter.empty] * (len(names) - len(function.args.defaults)) + list(function.args.defaults)
    parameters = [
        inspect.Parameter(
            argument.arg,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=_default(default),
            annotation=ast.unparse(argument.annotation) if argument.annotation else "Any",
        )
        for argument, default in zip(names, defaults, strict=True)
    ]
    return inspect.Signature(parameters, return_annotation=ast.unparse(function.returns) if function.returns else "Any")


def _default(node: Any) -> Any:
    if node is inspect.Parameter.empty:
        return node
    return None if isinstance(node, ast.Constant) and node.value is None else ...
