"""TensorRT's messages, into Python's logging; the last error is kept for the sentence that a person gets to read."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakSet

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


_logger: trt.ILogger | None = None
_listeners: WeakSet[Messages] = WeakSet()
_lock = threading.RLock()  # a message may come while the same thread holds it: from a destructor


class Messages:
    """What TensorRT has said in this process since this was made, to whatever object it said it.

    Attributes:
        errors: Its error messages, oldest first.
    """

    def __init__(self) -> None:
        self.errors: list[str] = []
        with _lock:
            _listeners.add(self)

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


def the_logger() -> trt.ILogger:
    """Return the logger of this process, which tells every :class:`Messages`.

    There is one, and it stays: TensorRT keeps the pointer to the first it is given for as long as any builder or runtime
    lives, also when that one's own is gone (NVIDIA/TensorRT #1475), so no object's logger may go with it.
    """
    global _logger
    import tensorrt as trt

    if not isinstance(_logger, trt.ILogger):

        class Log(trt.ILogger):
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
                _tell(severity.name, msg.strip())

        _logger = Log()
    return _logger


def _tell(severity: str, message: str) -> None:
    level = _LEVELS[severity]
    if level == logging.ERROR:
        with _lock:
            for messages in _listeners:
                messages.errors.append(message)
        level = logging.DEBUG  # it becomes part of an exception
    if level:
        log.log(level, "%s", message)
