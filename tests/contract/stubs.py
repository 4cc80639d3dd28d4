"""Type stubs out of a record, so that a type checker sees what one version of TensorRT has."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from .record import Record, signature_of

_HEAD = """\
from __future__ import annotations
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, TypeAlias, overload

Buffer: TypeAlias = bytes | bytearray | memoryview | IHostMemory
DimsLike: TypeAlias = Dims | Sequence[int]
__version__: str
"""

NONE_ON_FAILURE = {
    "build_engine",
    "build_serialized_network",
    "create_execution_context",
    "create_execution_context_without_device_memory",
    "create_timing_cache",
    "deserialize_cuda_engine",
    "get_input",
    "get_layer",
    "get_output",
    "get_timing_cache",
    "load_runtime",
}
"""Methods that return a null pointer when something went wrong, which the signatures do not say."""

MENDED = {
    ("Calibrator", "get_batch"): "(self, names: list[str]) -> Sequence[int] | None",
    ("Calibrator", "read_calibration_cache"): "(self) -> Buffer | None",
    ("Calibrator", "write_calibration_cache"): "(self, cache: memoryview) -> None",
    ("IProgressMonitor", "phase_start"): "(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None",
}
"""Callbacks, whose signatures are those of the C++ side; the class is matched by how its name ends."""

SPECIAL = {
    ("Dims", "__getitem__"): "(self, index: int) -> int",
    ("Dims", "__iter__"): "(self) -> Iterator[int]",
    ("Dims", "__len__"): "(self) -> int",
    ("Dims", "__setitem__"): "(self, index: int, value: int) -> None",
    ("ICudaEngine", "__getitem__"): "(self, index: int) -> str",
    ("ICudaEngine", "__len__"): "(self) -> int",
    ("IHostMemory", "__buffer__"): "(self, flags: int) -> memoryview",
    ("INetworkDefinition", "__getitem__"): "(self, index: int) -> ILayer",
    ("INetworkDefinition", "__len__"): "(self) -> int",
}
"""Special methods with the types that are nowhere written; not ``__enter__``, which is deprecated."""
UNRECORDED = {("Dims", "__iter__"), ("IHostMemory", "__buffer__")}
"""Those that Python itself makes, out of ``__getitem__`` and of the buffer protocol."""

PYTHON = {"Dims": "DimsLike", "object": "Any", "list": "Sequence[int]", "tuple": "tuple[int, ...]"}
"""Types of arguments as a caller may give them."""

FUNCTIONS = {"volume": "(iterable: Iterable[int]) -> int"}


def write_stubs(record: Record, folder: Path) -> Path:
    """Write ``tensorrt/__init__.pyi`` of a record's version into a folder, which mypy's path has to name; return the folder."""
    lines = [_HEAD]
    for name, entry in sorted(record.classes.items()):
        if "." not in name:
            lines += _class(record, name, entry, "")
    for name, texts in sorted(record.functions.items()):
        lines += _function(name, [FUNCTIONS[name]] if name in FUNCTIONS else [_text(text, "") for text in texts], "")
    lines += [f"{name}: DataType" for name in sorted(record.constants) if name != "bool"]  # it would hide the built-in
    package = folder / "tensorrt"
    package.mkdir(parents=True)
    (package / "__init__.pyi").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (package / "py.typed").touch()
    return folder


def _class(record: Record, name: str, entry: dict[str, Any], indent: str) -> list[str]:
    short = name.rpartition(".")[2]
    bases = ", ".join(entry.get("bases", []))
    lines = [f"{indent}class {short}({bases}):" if bases else f"{indent}class {short}:"]
    pad = indent + "    "
    if "values" in entry:
        body = [f"{label}: ClassVar[{name}]" for label in entry["values"]]
        body += [f"__members__: ClassVar[dict[str, {name}]]", "name: str", "value: int"]
        body += ["def __init__(self, value: int) -> None: ...", "def __int__(self) -> int: ..."]
        body += ["def __index__(self) -> int: ...", "def __hash__(self) -> int: ..."]
        if short == "Severity":
            body += [f"def __{order}__(self, other: {name}) -> bool: ..." for order in ("lt", "le", "gt", "ge")]
        return lines + [pad + line for line in body]
    for nested, inner in record.classes.items():
        if nested.startswith(f"{name}."):
            lines += _class(record, nested, inner, pad)
    for label, value in entry["constants"].items():
        lines.append(f"{pad}{label}: ClassVar[ILogger.{value.partition('.')[0]}]")
    for label, kind in entry["properties"].items():
        if label not in entry["settable"]:
            lines += [f"{pad}@property", f"{pad}def {label}(self) -> {kind}: ..."]
        else:
            is_object = kind in record.classes and "values" not in record.classes[kind] and kind != "Dims"
            lines.append(f"{pad}{label}: {kind} | None" if is_object else f"{pad}{label}: {kind}")
    for method, texts in entry["methods"].items():
        mended = [text for (end, key), text in MENDED.items() if name.rstrip("2").endswith(end) and key == method]
        lines += _function(method, mended or [_text(text, method) for text in texts], pad)
    for (owner, method), text in SPECIAL.items():
        if owner == name and (method in entry["special"] or (owner, method) in UNRECORDED):
            lines += _function(method, [text], pad)
    return lines if len(lines) > 1 else [*lines, f"{pad}..."]


def _text(text: str, method: str) -> str:
    """Return a recorded signature as a stub's: with self in a method, Dims from tuples, None where a call may fail."""
    signature = signature_of(text)
    parameters = ["self"] if method else []
    for parameter in signature.parameters.values():
        kind = PYTHON.get(parameter.annotation, parameter.annotation.replace("list[", "Sequence["))
        kind += " | None" if parameter.default is None else ""
        parameters.append(f"{parameter.name}: {kind}" + ("" if parameter.default is inspect.Parameter.empty else " = ..."))
    result = {"list": "list[Any]"}.get(signature.return_annotation, signature.return_annotation)
    result += " | None" if method in NONE_ON_FAILURE else ""
    return f"({', '.join(parameters)}) -> {result}"


def _function(name: str, texts: list[str], indent: str) -> list[str]:
    overload = [f"{indent}@overload"] if len(texts) > 1 else []
    return [line for text in texts for line in [*overload, f"{indent}def {name}{text}: ..."]]
