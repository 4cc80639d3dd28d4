"""A TensorRT build in a process of its own, so that what kills it (memory, a crash in a driver) is an error like any other.

The child is told what to build in one line of JSON and answers in lines of JSON, each an event. It gives up when its input
ends: that is how it is cancelled, and what it sees when this process dies.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from edgesod import errors
from edgesod.errors import BuildError, EdgesodError
from edgesod.manifest import TensorRtBuild

from .tensorrt_build import BuildRequest

GRACE_S = 5.0
"""How long a cancelled build may take to end by itself."""
_CHILD = "edgesod.builder.tensorrt_child"
_STEPS = 1000


def build_in_child(
    request: BuildRequest, on_step: Callable[[str], None], on_progress: Callable[[int, int | None], None]
) -> TensorRtBuild:
    """Build an engine in another process and wait for it.

    Args:
        request: What to build.
        on_step: Told each step in a sentence, and twice a minute that it is still going on.
        on_progress: Told ``(done, 1000)`` where TensorRT says how far it is (10.0 and later).

    Raises:
        BackendError, BuildError, InputError: As :func:`~edgesod.builder.tensorrt_build.build_plan`; BuildError also where
            the process was killed or crashed.
        KeyboardInterrupt: Ctrl-C; the child is gone by then.
    """
    built: TensorRtBuild | None = None
    workspace = ""
    with _child(request) as child:
        assert child.stdout is not None
        for event in map(json.loads, child.stdout):
            if "step" in event:
                on_step(event["step"])
            elif "fraction" in event:
                on_progress(int(event["fraction"] * _STEPS), _STEPS)
            elif "workspace_mib" in event:
                workspace = f"{event['workspace_mib']} MiB of the GPU's {event['free_mib']} MiB that were free"
                on_step(f"workspace: {workspace}")
            elif "error" in event:
                raise _typed(event)
            elif "built" in event:
                built = TensorRtBuild.model_validate(event["built"])
    if built is None:
        raise _died(child.returncode, workspace)
    return built


@contextmanager
def _child(request: BuildRequest) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-m", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env=_environment(),
    )
    assert child.stdin is not None
    try:
        with suppress(BrokenPipeError):  # it died at once: its exit code says how
            child.stdin.write(request.model_dump_json() + "\n")
            child.stdin.flush()
        yield child
        child.wait()
    finally:
        try:
            _close(child.stdin)
            child.wait(GRACE_S + 1)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()


def _environment() -> dict[str, str]:
    """Return an environment in which a new Python finds the modules that this one does, and no others."""
    named = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    paths = dict.fromkeys([*named, *(path or os.getcwd() for path in sys.path)])
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


def _close(pipe: IO[str]) -> None:
    with suppress(BrokenPipeError):
        pipe.close()


def _typed(event: dict[str, Any]) -> EdgesodError:
    kind = getattr(errors, event["error"], BuildError)
    error: EdgesodError = kind(event["message"], hint=event["hint"])
    return error


def _died(code: int, workspace: str) -> BuildError:
    if code == -signal.SIGKILL:
        return BuildError(
            "the system killed the build, which is how it ends programs when memory runs out"
            + (f"; the workspace was {workspace}" if workspace else ""),
            hint="give less with --workspace MIB, close other programs, or add swap",
        )
    how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with code {code} and without a reason"
    return BuildError(
        f"the process that builds with TensorRT ended {how}", hint="try another --opt-level or precision, and report it"
    )


class Heartbeat:
    """Says now and then that a build goes on, with the time left where it is known."""

    def __init__(self, every_s: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.every_s = every_s
        self._clock = clock
        self._began = clock()
        self._fraction = 0.0

    def on_fraction(self, fraction: float) -> None:
        """Take how much is done."""
        self._fraction = fraction

    def text(self) -> str:
        """Return the sentence for now."""
        passed = self._clock() - self._began
        text = f"still building after {passed:.0f} s"
        if self._fraction > 0:
            text += f", {self._fraction:.0%} done, about {passed * (1 / self._fraction - 1):.0f} s left"
        return text
