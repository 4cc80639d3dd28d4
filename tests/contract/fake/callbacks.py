"""What users derive from: loggers, calibrators, progress monitors, profilers. Here is what happens where they do not."""

from __future__ import annotations

import sys
from typing import Any

from .property import Default


class ILogger:
    def log(self, severity: Any, msg: str) -> None:
        raise RuntimeError('Tried to call pure virtual function "ILogger::log"')


class Logger:
    min_severity = Default("trt.ILogger.WARNING")

    def __init__(self, min_severity: Any = None) -> None:
        self._min_severity = min_severity or self._fake.trt.ILogger.WARNING

    def log(self, severity: Any, msg: str) -> None:
        if severity <= self._min_severity:
            print(f"[TRT] [{severity.name[0]}] {msg}", file=sys.stderr)


class IInt8Calibrator:
    def get_batch_size(self) -> int:
        raise RuntimeError('Tried to call pure virtual function "get_batch_size"')

    def get_batch(self, names: list[str]) -> Any:
        raise RuntimeError('Tried to call pure virtual function "get_batch"')

    def read_calibration_cache(self) -> Any:
        return None

    def write_calibration_cache(self, cache: Any) -> None:
        pass

    def get_algorithm(self) -> Any:
        raise RuntimeError('Tried to call pure virtual function "get_algorithm"')


class IInt8EntropyCalibrator2(IInt8Calibrator):
    def get_algorithm(self) -> Any:
        return self._fake.trt.CalibrationAlgoType.ENTROPY_CALIBRATION_2


class IInt8MinMaxCalibrator(IInt8Calibrator):
    def get_algorithm(self) -> Any:
        return self._fake.trt.CalibrationAlgoType.MINMAX_CALIBRATION


class IProgressMonitor:
    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise RuntimeError('Tried to call pure virtual function "phase_start"')

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise RuntimeError('Tried to call pure virtual function "step_complete"')

    def phase_finish(self, phase_name: str) -> None:
        raise RuntimeError('Tried to call pure virtual function "phase_finish"')


class IProfiler:
    def report_layer_time(self, layer_name: str, ms: float) -> None:
        raise RuntimeError('Tried to call pure virtual function "report_layer_time"')


class Profiler:
    def report_layer_time(self, layer_name: str, ms: float) -> None:
        print(f"{layer_name}: {ms}ms")
