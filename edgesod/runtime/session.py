"""The one face that every backend shows: named arrays in, named arrays out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesod.errors import BackendError, InputError
from edgesod.types import TensorSpec

Arrays = dict[str, NDArray[Any]]


class Session(ABC):
    """A loaded engine. One thread at a time; whoever opens it closes it, preferably with ``with``.

    A backend implements ``_run`` and ``_close``; the checks are here, once.

    Attributes:
        backend: Name of the backend.
        inputs: What ``run`` takes.
        outputs: What ``run`` returns.
    """

    def __init__(self, backend: str, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> None:
        self.backend = backend
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self._is_closed = False

    @property
    def facts(self) -> dict[str, str]:
        """What else a measurement has to say about where it was made; nothing for most backends."""
        return {}

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run the network once.

        Args:
            feeds: One array per input, by name, of its exact shape and dtype. Arrays are read while this call lasts and
                never kept.

        Returns:
            One array per output, by name. They belong to the caller: no later run writes to them, and they outlive the
            session.

        Raises:
            BackendError: The session is closed.
            InputError: An input is missing or unknown, or an array has another shape or dtype.
        """
        if self._is_closed:
            raise BackendError(f"this {self.backend} session is closed", hint="open another one")
        check_arrays("inputs", self.inputs, feeds)
        return self._run({name: np.ascontiguousarray(array) for name, array in feeds.items()})

    def close(self) -> None:
        """Free the engine; safe to call twice."""
        if not self._is_closed:
            self._is_closed = True
            self._close()

    @abstractmethod
    def _run(self, feeds: Arrays) -> Arrays:
        """Run on contiguous arrays that were checked, and return arrays that nothing else will write to."""

    @abstractmethod
    def _close(self) -> None:
        """Let go of everything; called once."""

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def check_arrays(what: str, specs: Iterable[TensorSpec], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise :class:`~edgesod.errors.InputError` unless ``arrays`` are exactly what ``specs`` ask for."""
    wanted = {spec.name: spec for spec in specs}
    if arrays.keys() != wanted.keys():
        raise InputError(f"the network's {what} are {sorted(wanted)}, got {sorted(arrays)}")
    for name, spec in wanted.items():
        array = arrays[name]
        if not isinstance(array, np.ndarray):
            raise InputError(f"{name!r} of the network's {what} is an array, got a {type(array).__name__}")
        if array.shape != spec.shape or array.dtype.name != spec.dtype:
            raise InputError(
                f"{name!r} of the network's {what} is {spec.dtype} {spec.shape}, got {array.dtype.name} {array.shape}"
            )
