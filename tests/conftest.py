"""What every test may rely on."""

from __future__ import annotations

import signal

from tests.contract.fixtures import machine, tensorrt, tensorrt_version

__all__ = ["machine", "tensorrt", "tensorrt_version"]

# A shell that starts the suite in the background has it ignore Ctrl-C, which some tests press.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
