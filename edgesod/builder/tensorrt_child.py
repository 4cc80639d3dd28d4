"""The process that a TensorRT build runs in; see :mod:`~edgesod.builder.tensorrt_process`."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import TextIO

from edgesod.errors import BuildError, EdgesodError

from .tensorrt_build import BuildRequest, build_plan
from .tensorrt_process import GRACE_S, Heartbeat

_INTERRUPTED = 130
_SMALLEST_STEP = 0.001


class _Events:
    """Writes events, from any thread."""

    def __init__(self, stream: TextIO, heartbeat: Heartbeat) -> None:
        self._stream, self._heartbeat = stream, heartbeat
        self._lock = threading.Lock()
        self._told = 0.0

    def send(self, **event: object) -> None:
        with self._lock:
            self._stream.write(json.dumps(event) + "\n")
            self._stream.flush()

    def on_step(self, text: str) -> None:
        self.send(step=text)

    def on_fraction(self, fraction: float) -> None:
        self._heartbeat.on_fraction(fraction)
        if fraction - self._told >= _SMALLEST_STEP:
            self._told = fraction
            self.send(fraction=fraction)

    def on_workspace(self, workspace_mib: int, free_mib: int) -> None:
        self.send(workspace_mib=workspace_mib, free_mib=free_mib)


def main() -> None:
    """Build what the first line of stdin says; events go to stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C goes to both processes: the other one decides
    stream = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no event
    cancelled, heartbeat = threading.Event(), Heartbeat()
    events = _Events(stream, heartbeat)
    request = BuildRequest.model_validate_json(sys.stdin.buffer.readline())
    threading.Thread(target=_watch_input, args=(cancelled,), daemon=True).start()
    threading.Thread(target=_beat, args=(events, heartbeat), daemon=True).start()
    try:
        built = build_plan(request, events, cancelled)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except EdgesodError as error:
        events.send(error=type(error).__name__, message=str(error), hint=error.hint)
    except Exception as error:  # the other process has no traceback to show, so this is all there will be
        events.send(
            error=BuildError.__name__,
            message=f"the build failed in a way it did not foresee: {type(error).__name__}: {error}",
            hint="report it, with the version of TensorRT",
        )
    else:
        events.send(built=built.model_dump(mode="json"))


def _watch_input(cancelled: threading.Event) -> None:
    """Cancel when the input ends; leave for good if that takes too long, as it does where TensorRT cannot be told."""
    while os.read(0, 1):  # not by sys.stdin, whose lock this thread would still hold when the program ends
        pass
    cancelled.set()
    threading.Event().wait(GRACE_S)
    os._exit(_INTERRUPTED)


def _beat(events: _Events, heartbeat: Heartbeat) -> None:
    never = threading.Event()
    while not never.wait(heartbeat.every_s):
        events.on_step(heartbeat.text())


if __name__ == "__main__":
    main()
