"""TensorRT is given one logger in a process, which outlives everything, and each object hears of its errors."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType

import pytest

from edgesod.runtime import open_session
from edgesod.runtime.cuda import memory
from edgesod.runtime.tensorrt_log import Messages, the_logger
from edgesod.runtime.tensorrt_session import TensorRtSession
from tests.contract.machine import Machine


def test_a_process_has_one_logger_that_stays(plan: Path, machine: Machine, driver: memory.Driver) -> None:
    first = TensorRtSession(plan)
    second = TensorRtSession(plan)
    first.close()  # TensorRT still has the logger that this one came with
    second.close()
    open_session(plan, "fp32").close()
    assert machine.touched.count("Runtime") == 3
    assert machine.touched.count("ILogger") == machine.alive["ILogger"] == 1


def test_errors_reach_whoever_is_there_and_nobody_later(tensorrt: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    first, second = Messages(), Messages()
    assert first.last() == "TensorRT gives no reason"
    severity = tensorrt.ILogger.Severity
    with caplog.at_level(logging.DEBUG, "edgesod.tensorrt"):
        the_logger().log(severity.ERROR, "it broke\n")
        the_logger().log(severity.WARNING, "it creaks")
        the_logger().log(severity.VERBOSE, "it hums")
    assert first.errors == second.errors == ["it broke"]
    assert Messages().errors == []
    assert caplog.messages == ["it broke", "it creaks"]
