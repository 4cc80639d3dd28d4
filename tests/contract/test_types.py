"""Our TensorRT files are right in the types of every version, and what is wrong in one is found there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgesod.runtime.tensorrt_version import _CONSTANTS

from .record import VERSIONS, Record, load
from .stubs import write_stubs

ROOT = Path(__file__).parents[2]
OURS = sorted(path for room in ("runtime", "builder") for path in (ROOT / "edgesod" / room).glob("tensorrt*.py"))

EVERYWHERE, FROM_10, UNTIL_10 = set(VERSIONS), set(VERSIONS[2:]), set(VERSIONS[:2])
PLANTED = {
    'context.set_tensor_address("x", "not an address")': EVERYWHERE,
    "config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPCE, 1)": EVERYWHERE,
    "builder.build_serialized_network(network, config).nbytes": EVERYWHERE,  # None when the build failed
    "1 << trt.BuilderFlag.TF32": EVERYWHERE,  # not an int
    "Engine.context(engine).nonsense()": EVERYWHERE,  # our own files see the version's types too
    "context.execute_async_v2([1, 2], 0)": FROM_10,
    "engine.native.get_binding_name(0)": FROM_10,
    "config.max_workspace_size = 1": FROM_10,
    "config.progress_monitor = None": UNTIL_10,
    "parser.get_error(0).node_name()": UNTIL_10,
    "config.builder_optimization_level = 3": {VERSIONS[0]},
    "trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH": {VERSIONS[-1]},
    "config.set_flag(trt.BuilderFlag.FP16)": {VERSIONS[-1]},
    "config.int8_calibrator = None": {VERSIONS[-1]},
    "engine.native.device_memory_size": {VERSIONS[-1]},
    "context.set_tensor_address('x', 1)": set(),
    "profile.set_shape('x', (1, 3, 8, 8), (1, 3, 8, 8), trt.Dims((1, 3, 8, 8)))": set(),
}
"""Statements, each with the versions in whose types it is wrong."""
HEAD = """\
import tensorrt as trt
from edgesod.runtime.tensorrt_engine import Engine

def planted(builder: trt.Builder, network: trt.INetworkDefinition, config: trt.IBuilderConfig, parser: trt.OnnxParser,
            profile: trt.IOptimizationProfile, engine: Engine, context: trt.IExecutionContext) -> None:
"""


def test_the_files_that_use_tensorrt_are_the_ones_checked() -> None:
    using = {path for path in (ROOT / "edgesod").rglob("*.py") if re.search(r"^\s*import tensorrt\b", path.read_text(), re.M)}
    assert using
    assert using <= set(OURS)


@pytest.mark.parametrize("version", VERSIONS)
def test_types_of_every_version(version: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    mypy = pytest.importorskip("mypy.api")
    record = load(version)
    planted = tmp_path / "planted.py"
    planted.write_text(HEAD + "".join(f"    {statement}\n" for statement in PLANTED), encoding="utf-8")
    config = _configuration(record, write_stubs(record, tmp_path / "stubs"), pytestconfig.cache.mkdir("mypy-tensorrt"))
    (tmp_path / "mypy.ini").write_text(config, encoding="utf-8")
    said, failure, _ = mypy.run([f"--config-file={tmp_path / 'mypy.ini'}", *map(str, OURS), str(planted)])
    assert not failure
    errors = re.findall(r"^(.+?):(\d+): error: (.*)$", said, re.M)
    assert [error for error in errors if Path(error[0]).name != "planted.py"] == []
    lines = planted.read_text(encoding="utf-8").splitlines()
    found = {lines[int(line) - 1].strip() for _, line, _ in errors}
    assert found == {statement for statement, versions in PLANTED.items() if version in versions}, said


def _configuration(record: Record, stubs: Path, cache: Path) -> str:
    """One cache serves all versions: the constants are an option of our files alone, so the rest is not read again."""
    true = [name for name, number in _CONSTANTS.items() if record.number >= number]
    false = [name for name in _CONSTANTS if name not in true]
    return f"""\
[mypy]
strict = True
python_version = 3.10
follow_imports = silent
ignore_missing_imports = True
warn_unused_ignores = False
mypy_path = {ROOT}:{stubs}
cache_dir = {cache}

[mypy-edgesod.*]
always_true = {", ".join(true)}
always_false = {", ".join(false)}
"""
