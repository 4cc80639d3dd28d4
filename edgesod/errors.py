"""Every error edgesod raises on purpose, and the exit code each ends the command line with.

::

    EdgesodError                      1
    ├── CheckFailed                   1   a gate, a parity check or a drift bound
    ├── UsageError                    2   options that do not fit together
    ├── InputError                    3   a model, image, video, folder or table that cannot be read
    │   └── StaleError                3   an input that belongs to something else: a table of another ONNX, …
    ├── BackendError                  4   a backend or device that is missing or does not fit
    │   ├── ManifestMismatch          4   an engine folder made for something else than what is here
    │   └── DeviceError               4   a GPU that failed in use, or was used against its rules
    ├── BuildError                    5   an engine that could not be built
    │   └── OutputError               5   a result that could not be written
    └── SourceLost                    6   a camera or stream that went away for good

An error says what happened and what was seen; ``hint`` is the command or step that mends it.
"""

from __future__ import annotations


class EdgesodError(Exception):
    """Base of every error of this project.

    Attributes:
        hint: What the person at the keyboard can do, usually a command; empty when there is nothing to add.
        exit_code: What the command line ends with.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class CheckFailed(EdgesodError):
    """A result was made and measured, and did not pass."""


class UsageError(EdgesodError):
    """Options or arguments that do not fit together."""

    exit_code = 2


class InputError(EdgesodError):
    """Something given as input is missing, unreadable or not what it should be."""

    exit_code = 3


class StaleError(InputError):
    """An input is whole but was made for something else."""


class BackendError(EdgesodError):
    """A backend or device is missing, or cannot do what was asked."""

    exit_code = 4


class ManifestMismatch(BackendError):
    """An engine folder does not fit its manifest, this machine or the backend here."""


class DeviceError(BackendError):
    """A GPU failed while in use (out of memory, lost), or was used against its rules (another thread, after closing)."""


class BuildError(EdgesodError):
    """An engine could not be made."""

    exit_code = 5


class OutputError(BuildError):
    """A result could not be written: no space, no permission, no folder."""


class SourceLost(EdgesodError):
    """A camera or stream went away and did not come back."""

    exit_code = 6
