"""Hold a fake module to a version's record, both ways: nothing more than the real one has, nothing less, nothing else."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

from .record import Record, signature_of

_SPECIAL = ("__bool__", "__enter__", "__exit__", "__getitem__", "__iter__", "__len__", "__setitem__")


def check(fake: ModuleType, record: Record) -> list[str]:
    """Return what is wrong with a fake, one sentence each; empty where it fits."""
    classes = dict(_classes(fake))
    bad = [f"{name} is not in TensorRT {record.version}" for name in sorted(classes.keys() - record.classes.keys())]
    bad += [f"{name} is missing" for name in sorted(record.classes.keys() - classes.keys())]
    for name in sorted(classes.keys() & record.classes.keys()):
        entry = record.classes[name]
        bad += _check_enum(name, classes[name], entry) if "values" in entry else _check_class(name, classes[name], entry)
    for name, value in record.constants.items():
        if str(getattr(fake, name, None)) != value:
            bad.append(f"{name} is {getattr(fake, name, None)}, really {value}")
    functions = {name for name, value in vars(fake).items() if inspect.isfunction(value) and not name.startswith("_")}
    return bad + [f"{name}() differs" for name in sorted(functions ^ record.functions.keys())]


def _classes(owner: Any, prefix: str = "") -> list[tuple[str, type]]:
    found = []
    for name, value in vars(owner).items():
        if isinstance(value, type) and not name.startswith("_"):
            found += [(prefix + name, value), *_classes(value, f"{prefix}{name}.")]
    return found


def _check_enum(name: str, cls: Any, entry: dict[str, Any]) -> list[str]:
    members = {label: int(value) for label, value in vars(cls).items() if isinstance(value, cls)}
    bad = [f"{name}.{label} = {value}, really {entry['values'].get(label)}" for label, value in members.items()]
    bad = [
        sentence for sentence, (label, value) in zip(bad, members.items(), strict=True) if entry["values"].get(label) != value
    ]
    return bad + [f"{name}.{label} is missing" for label in sorted(entry["values"].keys() - members.keys())]


def _check_class(name: str, cls: type, entry: dict[str, Any]) -> list[str]:
    public = {key: value for key, value in vars(cls).items() if not key.startswith("_")}
    properties = {key: value for key, value in public.items() if isinstance(value, property)}
    methods = {key: value for key, value in public.items() if inspect.isfunction(value)}
    real = {key: texts for key, texts in entry["methods"].items() if key != "__init__"}
    bad = [f"{name}.{key} is no property there" for key in sorted(properties.keys() - entry["properties"].keys())]
    bad += [f"{name}.{key} is missing" for key in sorted(entry["properties"].keys() - properties.keys())]
    bad += [f"{name}.{key}() is no method there" for key in sorted(methods.keys() - real.keys())]
    bad += [f"{name}.{key}() is missing" for key in sorted(real.keys() - methods.keys())]
    for key in sorted(properties.keys() & entry["properties"].keys()):
        if (properties[key].fset is not None) != (key in entry["settable"]):
            bad.append(f"{name}.{key} can be set here or there, not both")
    checked = {key: methods[key] for key in methods.keys() & real.keys()}
    if "__init__" in entry["methods"]:
        checked["__init__"] = vars(cls).get("__init__")
    for key, method in sorted(checked.items()):
        here = inspect.signature(method).parameters.keys() - {"self"}
        there = {p for text in entry["methods"][key] for p in signature_of(text).parameters}
        if here != there:
            bad.append(f"{name}.{key}() takes {sorted(here)}, really {sorted(there)}")
    special = {key for key in _SPECIAL if key in vars(cls) and vars(cls)[key].__name__ != "_refuse"}
    if cls.__base__ is not None and issubclass(cls, bytearray):
        special -= {"__bool__"}  # what every object without one has, and a bytearray would not
    bad += [f"{name}.{key} differs" for key in sorted(special ^ set(entry["special"]))]
    others = set(public) - set(properties) - set(methods) - set(entry["constants"])
    return bad + [f"{name}.{key} is not there" for key in sorted(others) if not isinstance(public[key], type)]
