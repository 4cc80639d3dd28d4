"""How far a build has come, from TensorRT's nested phases (10.0 and later)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgesod.runtime import tensorrt_version as version

if TYPE_CHECKING:
    import tensorrt as trt


@dataclass
class _Phase:
    steps: int
    parent: _Phase | None
    done: int = 0
    children: list[_Phase] = field(default_factory=list)
    """Those under way; a finished one is a part of its parent's step."""

    def fraction(self) -> float:
        within = min(1.0, sum(child.fraction() for child in self.children))
        return min(1.0, (self.done + within) / max(1, self.steps))


class Progress:
    """Sums phases up to one fraction that never falls. TensorRT's threads may all call it at once.

    Args:
        on_fraction: Told the fraction, 0 to 1, when it grew; not by two threads at a time.
        is_cancelled: Asked at each step.
    """

    def __init__(self, on_fraction: Callable[[float], None], is_cancelled: Callable[[], bool]) -> None:
        self._on_fraction, self._is_cancelled = on_fraction, is_cancelled
        self._phases: dict[str, _Phase] = {}
        self._fraction = 0.0
        self._lock = threading.Lock()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Begin a phase, within a step of its parent."""
        with self._lock:
            phase = self._phases[name] = _Phase(steps, self._phases.get(parent) if parent is not None else None)
            if phase.parent is not None:
                phase.parent.children.append(phase)

    def step(self, name: str, step: int) -> bool:
        """Take note that a step, counted from 0, is done; return whether to go on."""
        with self._lock:
            if name in self._phases:
                self._phases[name].done = step + 1
                self._tell(name)
        return not self._is_cancelled()

    def finish(self, name: str) -> None:
        """End a phase."""
        with self._lock:
            phase = self._phases.pop(name, None)
            if phase is not None and phase.parent is not None and phase in phase.parent.children:
                phase.parent.children.remove(phase)

    def _tell(self, name: str) -> None:
        root = self._phases[name]
        while root.parent is not None:
            root = root.parent
        fraction = root.fraction()
        if fraction > self._fraction:
            self._fraction = fraction
            self._on_fraction(fraction)


def watch(config: trt.IBuilderConfig, progress: Progress) -> None:
    """Have a build tell ``progress`` how far it is; TensorRT before 10 says nothing."""
    if version.TRT_GE_100:
        import tensorrt as trt

        class Monitor(trt.IProgressMonitor):
            def __init__(self) -> None:
                trt.IProgressMonitor.__init__(self)

            def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
                progress.start(phase_name, parent_phase, num_steps)

            def step_complete(self, phase_name: str, step: int) -> bool:
                return progress.step(phase_name, step)

            def phase_finish(self, phase_name: str) -> None:
                progress.finish(phase_name)

        config.progress_monitor = Monitor()
