"""One fake TensorRT for every version: hand-made behaviour, cut down to what a version's record says is there.

:func:`make_fake` makes a module whose classes have exactly the recorded methods, properties and enum members, whose methods
take exactly the recorded arguments and types, and on which nothing else can be called or set. So code that uses what a version
lacks fails here as it would there, with AttributeError or TypeError. What the record has and nobody has taught the fake to do
raises NotImplementedError, so that ``hasattr`` still tells the truth.

The mechanics are here, imitating pybind11; behaviour is in ``fake/``, the pretended computer in ``machine``.
"""

from __future__ import annotations

import importlib.machinery
import inspect
import operator
import sys
import types
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from .fake import builder, callbacks, context, engine, inspector, network, values
from .fake.property import Default
from .machine import Machine, SegmentationFault
from .record import Record, signature_of

BEHAVIOURS: dict[str, type] = {
    name: thing
    for module in (builder, callbacks, context, engine, inspector, network, values)
    for name, thing in vars(module).items()
    if isinstance(thing, type) and thing.__module__ == module.__name__ and not name.startswith("_")
}


_UNTAUGHT = object()


def make_fake(record: Record, machine: Machine | None = None) -> types.ModuleType:
    """Return a module that stands in for ``tensorrt`` of the record's version, on a machine of its own or the given one."""
    return Fake(record, machine or Machine()).trt


class Fake:
    """What the objects of one fake module share.

    Attributes:
        record, machine: What it is made from.
        trt: The module.
    """

    def __init__(self, record: Record, machine: Machine) -> None:
        self.record, self.machine = record, machine
        self.trt = types.ModuleType("tensorrt")
        self.trt.__version__ = record.version
        self.trt.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None)
        self.trt._fake = self
        for name, entry in sorted(record.classes.items(), key=lambda item: (len(_bases(item[1])), "." in item[0])):
            cls = _enum(name, entry["values"]) if "values" in entry else self._class(name, entry)
            owner, _, short = name.rpartition(".")
            setattr(getattr(self.trt, owner) if owner else self.trt, short, cls)
        for name, entry in record.classes.items():
            for constant, value in entry.get("constants", {}).items():
                enum, _, member = value.partition(".")
                setattr(getattr(self.trt, name), constant, getattr(getattr(self.trt.ILogger, enum), member))
        for name, value in record.constants.items():
            setattr(self.trt, name, getattr(self.trt.DataType, value.removeprefix("DataType.")))
        for name in record.functions:
            setattr(self.trt, name, getattr(_Functions, name))

    def make(self, name: str, /, **state: Any) -> Any:
        """Make an object that has no public constructor; ``state`` becomes its private attributes."""
        cls = getattr(self.trt, name)
        made = cls.__new__(cls)
        made._is_initialised = True
        if name == "IHostMemory":
            bytearray.__init__(made, state.pop("content"))
        for key, value in state.items():
            setattr(made, f"_{key}", value)
        self.watch(made, name)
        return made

    def watch(self, made: Any, name: str) -> None:
        if name == "Dims":  # a value, like a tuple
            return
        self.machine.alive[name] += 1
        weakref.finalize(made, _bury, self.machine, name)

    def log(self, logger: Any, severity: str, message: str) -> None:
        """Tell the logger; what it raises is printed and forgotten, as in the real bindings."""
        _call_back(lambda: logger.log(getattr(self.trt.ILogger, severity), message), "log")

    def call_back(self, name: str, function: Callable[[], Any], otherwise: Any = None) -> Any:
        """Call into the user's Python as the bindings do: an exception is printed to stderr and goes no further."""
        return _call_back(function, name, otherwise)

    def _class(self, name: str, entry: dict[str, Any]) -> type:
        behaviour = BEHAVIOURS.get(name, object)
        body: dict[str, Any] = {"_fake": self, "_is_python": False, "__module__": "tensorrt", "__qualname__": name}
        body |= {key: value for key, value in vars(behaviour).items() if _is_internal(key)}
        body["__init__"] = _constructor(name, entry["methods"].get("__init__"), behaviour)
        for method, texts in entry["methods"].items():
            if method != "__init__":
                body[method] = _method(self.record, name, method, texts, getattr(behaviour, method, None))
        for attribute, kind in entry["properties"].items():
            settable = attribute in entry["settable"]
            body[attribute] = _property(self.record, name, attribute, kind, settable, getattr(behaviour, attribute, _UNTAUGHT))
        if behaviour.__base__ is bytearray:
            body |= {key: behaviour._refuse for key, value in vars(behaviour).items() if value is behaviour._refuse}
            body["__bool__"] = _Special.__bool__
        for special in entry["special"]:
            body[special] = vars(behaviour).get(special) or getattr(_Special, special)
        bases = [getattr(self.trt, base) for base in entry["bases"]] or [_Pybind]
        return _PybindType(name, (*bases, *(base for base in behaviour.__bases__ if base is bytearray)), body)


class _PybindType(type):
    """Refuses objects whose Python class forgot to call the constructor it overrides."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__call__(*args, **kwargs)
        if not made._is_initialised:
            real = next(base for base in cls.__mro__ if not base._is_python)
            raise TypeError(f"tensorrt.tensorrt.{real.__name__}.__init__() must be called when overriding __init__")
        return made


class _Pybind(metaclass=_PybindType):
    """Nothing but the record's properties can be set, as on a pybind11 object; a Python subclass may have anything."""

    _fake: Fake
    _is_python = False
    _is_initialised = False
    _is_dangling = False

    def __init_subclass__(cls) -> None:
        if "_is_python" not in vars(cls):
            cls._is_python = True

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name.startswith("_") or self._is_python or isinstance(getattr(type(self), name, None), property)):
            raise AttributeError(f"'tensorrt.tensorrt.{type(self).__name__}' object has no attribute '{name}'")
        object.__setattr__(self, name, value)


class _Enum:
    """A pybind11 enum: not an int, not iterable, but with ``int()`` and ``__members__``."""

    __members__: dict[str, _Enum]

    def __new__(cls, value: int) -> _Enum:
        for member in cls.__members__.values():
            if member.value == operator.index(value):
                return member
        raise ValueError(f"{cls.__name__} has no member {value}")

    def __int__(self) -> int:
        return self.value

    __index__ = __int__

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self.name}: {self.value}>"

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


class _OrderedEnum(_Enum):
    def __lt__(self, other: _Enum) -> bool:
        return self.value < other.value

    def __le__(self, other: _Enum) -> bool:
        return self.value <= other.value


class _Functions:
    """The module's functions."""

    @staticmethod
    def volume(iterable: Sequence[int]) -> int:
        product = 1
        for size in iterable:
            product *= size
        return product

    @staticmethod
    def get_nv_onnx_parser_version() -> int:
        return 0

    @staticmethod
    def init_libnvinfer_plugins(logger: Any, namespace: str) -> bool:
        return True


class _Special:
    """Special methods that are the same everywhere."""

    def __enter__(self) -> Any:
        warnings.warn("TensorRT's objects are freed with their last reference, not by with", DeprecationWarning, stacklevel=2)
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def __bool__(self) -> bool:
        return True


def _bases(entry: dict[str, Any]) -> list[str]:
    return entry.get("bases", [])


def _is_internal(name: str) -> bool:
    """Say whether a behaviour's attribute is for the fake's own use: helpers, and what makes values print and compare."""
    return (name.startswith("_") and not name.startswith("__")) or name in (
        "__eq__",
        "__getattribute__",
        "__hash__",
        "__repr__",
    )


def _bury(machine: Machine, name: str) -> None:
    machine.alive[name] -= 1
    machine.destroyed.append(name)


def _call_back(function: Callable[[], Any], name: str, otherwise: Any = None) -> Any:
    try:
        return function()
    except Exception as error:
        print(f"[ERROR] Exception caught in {name}(): {type(error).__name__}: {error}", file=sys.stderr)
        return otherwise


def _enum(name: str, values: dict[str, int]) -> type:
    cls = type(name.rpartition(".")[2], (_OrderedEnum if name.endswith("Severity") else _Enum,), {"__module__": "tensorrt"})
    cls.__members__ = {}
    for label, number in values.items():
        member = object.__new__(cls)
        member.name, member.value = label, number
        cls.__members__[label] = member
        setattr(cls, label, member)
    return cls


def _constructor(name: str, texts: list[str] | None, behaviour: type) -> Callable[..., None]:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        if texts is None:
            raise TypeError(f"tensorrt.tensorrt.{name}: No constructor defined!")
        given = _match(self._fake, name, "__init__", texts, args, kwargs)
        self._is_initialised = True
        if name != "Dims":
            self._fake.machine.touched.append(name)
        if behaviour.__init__ is not object.__init__:
            behaviour.__init__(self, **given)
        self._fake.watch(self, name)

    if texts:
        __init__.__signature__ = _shown(texts)
    return __init__


def _method(
    record: Record, owner: str, name: str, texts: list[str], behaviour: Callable[..., Any] | None
) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self._is_dangling:
            raise SegmentationFault(f"{owner}.{name} without a device ends the process")
        given = _match(self._fake, owner, name, texts, args, kwargs)
        if behaviour is None:
            raise NotImplementedError(f"{owner}.{name} is in TensorRT {record.version}, but the fake has not learnt it")
        return behaviour(self, **given)

    method.__name__, method.__qualname__ = name, f"{owner}.{name}"
    method.__signature__ = _shown(texts)
    return method


def _property(record: Record, owner: str, name: str, kind: str, settable: bool, behaviour: Any) -> property:
    """A property of the behaviour, or a value of the class's that is read and, where it may be, set."""
    is_plain = not isinstance(behaviour, property)

    def read(self: Any) -> Any:
        if self._is_dangling:
            raise SegmentationFault(f"{owner}.{name} without a device ends the process")
        if not is_plain:
            return behaviour.fget(self)
        if f"_{name}" in vars(self):
            return vars(self)[f"_{name}"]
        if behaviour is _UNTAUGHT:
            raise NotImplementedError(f"{owner}.{name} is in TensorRT {record.version}, but the fake has not learnt it")
        return behaviour.of(self._fake) if isinstance(behaviour, Default) else behaviour

    def write(self: Any, value: Any) -> None:
        if self._is_dangling:
            raise SegmentationFault(f"{owner}.{name} without a device ends the process")
        is_object = isinstance(getattr(self._fake.trt, kind, None), _PybindType) and kind != "Dims"
        if not (_fits(self._fake, kind, value) or (value is None and is_object)):
            raise TypeError(f"(): incompatible function arguments: {owner}.{name} is {kind}, got {value!r}")
        if is_plain and behaviour is not _UNTAUGHT:
            object.__setattr__(self, f"_{name}", value)
        elif not is_plain and behaviour.fset is not None:
            behaviour.fset(self, value)
        else:
            raise NotImplementedError(f"{owner}.{name} can be set in TensorRT {record.version}, but the fake has not learnt it")

    return property(read, write if settable else None)


def _shown(texts: list[str]) -> inspect.Signature:
    """One signature with every argument of every overload, for whoever inspects the fake."""
    self = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = {p.name: p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for t in texts for p in signature_of(t).parameters.values()}
    return inspect.Signature([self, *named.values()])


def _match(fake: Fake, owner: str, name: str, texts: list[str], args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the arguments by name for the first overload that takes them, or refuse as pybind11 does."""
    for text in texts:
        signature = signature_of(text)
        try:
            bound = signature.bind(*args, **kwargs).arguments
        except TypeError:
            continue
        if all(
            _fits(fake, signature.parameters[key].annotation, value)
            or (value is None and signature.parameters[key].default is None)
            for key, value in bound.items()
        ):
            return bound
    supported = "\n".join(f"    {k}. {owner}.{name}{text}" for k, text in enumerate(texts, 1))
    given = ", ".join([*(repr(a) for a in args), *(f"{k}={v!r}" for k, v in kwargs.items())])
    raise TypeError(f"{name}(): incompatible function arguments. These are supported:\n{supported}\nInvoked with: {given}")


def _fits(fake: Fake, kind: str, value: Any) -> bool:
    """Say whether pybind11 would convert a value to a type of the record."""
    simple: dict[str, Callable[[Any], bool]] = {
        "Any": lambda v: True,
        "object": lambda v: True,
        "int": lambda v: hasattr(v, "__index__"),
        "float": lambda v: hasattr(v, "__float__") or hasattr(v, "__index__"),
        "bool": lambda v: type(v).__name__ in ("bool", "bool_"),
        "str": lambda v: isinstance(v, str),
        "Buffer": _is_buffer,
        "tuple": lambda v: isinstance(v, tuple),
        "list": lambda v: isinstance(v, list),
        "Dims": lambda v: isinstance(v, fake.trt.Dims) or _is_sequence_of(v, simple["int"]),
    }
    if kind in simple:
        return simple[kind](value)
    if kind.startswith(("list[", "Sequence[")):
        inner = kind[kind.index("[") + 1 : -1]
        return _is_sequence_of(value, lambda v: _fits(fake, inner, v))
    cls: Any = fake.trt
    for part in kind.split("."):
        cls = getattr(cls, part)
    return isinstance(value, cls)


def _is_sequence_of(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes) and all(fits(item) for item in value)


def _is_buffer(value: Any) -> bool:
    try:
        memoryview(value)
    except TypeError:
        return False
    return True
