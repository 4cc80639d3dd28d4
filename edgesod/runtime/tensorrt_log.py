"""TensorRT's messages, into Python's logging; the last error is kept for the sentence that a person gets to read."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgesod.errors import BackendError
from edgesod.manifest import Gpu

if TYPE_CHECKING:
    import tensorrt as trt

log = logging.getLogger("edgesod.tensorrt")

_LEVELS = {
    "INTERNAL_ERROR": logging.ERROR,
    "ERROR": logging.ERROR,
    "WARNING": logging.DEBUG,  # dozens in every build, none that a person could act on
    "INFO": logging.DEBUG,
    "VERBOSE": logging.NOTSET,
}


class Messages:
    """What TensorRT said.

    Attributes:
        errors: Its error messages, oldest first.
    """

    def __init__(self) -> None:
        self.errors: list[str] = []

    def add(self, severity: str, message: str) -> None:
        """Take a message, by the name of its severity."""
        level = _LEVELS[severity]
        if level == logging.ERROR:
            self.errors.append(message.strip())
            level = logging.DEBUG  # it becomes part of an exception
        if level:
            log.log(level, "%s", message.strip())

    def last(self) -> str:
        """Return the latest error, or that there is none."""
        return self.errors[-1] if self.errors else "TensorRT gives no reason"


@contextmanager
def starting(version: str, gpu: Gpu, messages: Messages) -> Iterator[None]:
    """Make a builder or a runtime within this: TensorRT that does not start there is an error that says why.

    Raises:
        BackendError: TensorRT does not work with this GPU and its driver.
    """
    try:
        yield
    except TypeError as error:  # how the bindings say that they got a null pointer
        raise BackendError(
            f"TensorRT {version} does not work with {gpu.text}: {messages.last()}",
            hint="install the TensorRT that was made for this CUDA driver",
        ) from error


def make_logger(messages: Messages) -> trt.ILogger:
    """Return a logger that fills ``messages``; it has to outlive every object it is given to."""
    import tensorrt as trt

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            messages.add(severity.name, msg)

    return Log()
