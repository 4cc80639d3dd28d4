"""Whatever happens to the process that builds, this one gets a typed error and lives on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgesod.builder import build, tensorrt_process
from edgesod.builder.tensorrt_build import BuildRequest
from edgesod.builder.tensorrt_policy import TensorRtOptions, policy
from edgesod.builder.tensorrt_process import build_in_child
from edgesod.errors import BackendError, BuildError
from edgesod.manifest import TensorRtBuild, check_manifest
from edgesod.recipe import Precision
from edgesod.runtime import Runtime
from tests.helpers.cli import edgesod

from .small import recipe, write_small

pytestmark = pytest.mark.usefixtures("tensorrt", "in_memory_gpu")
parametrize = pytest.mark.parametrize
SLOW = {"build_step_s": 0.5}


class Children:
    """Every process that was started, and the machine that its fake TensorRT finds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.started: list[subprocess.Popen[str]] = []

    def machine(self, **settings: Any) -> None:
        self._monkeypatch.setenv("FAKE_MACHINE", json.dumps(settings))

    def start(self, *args: Any, **kwargs: Any) -> subprocess.Popen[str]:
        self.started.append(subprocess.Popen(*args, **kwargs))
        return self.started[-1]

    @property
    def are_gone(self) -> bool:
        return bool(self.started) and all(child.poll() is not None for child in self.started)


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Children:
    children = Children(monkeypatch)

    class Spied:
        PIPE, TimeoutExpired, Popen = subprocess.PIPE, subprocess.TimeoutExpired, children.start

    monkeypatch.setattr(tensorrt_process, "subprocess", Spied)
    return children


def request_in(folder: Path, version: str, precision: Precision = "fp32", **asked: Any) -> BuildRequest:
    rule = policy(version, precision, TensorRtOptions(**asked))
    return BuildRequest(
        recipe=recipe(precision),
        onnx=write_small(folder / "model.onnx"),
        plan=folder / "engine.plan",
        options=TensorRtOptions(**asked),
        typing=rule.typing,
        int8_route=rule.int8_route,
        network_flags=rule.network_flags,
        builder_flags=rule.builder_flags,
        timing_caches=folder / "timings",
    )


def ignore(*_: Any) -> None:
    pass


@parametrize("tensorrt_version", ["8.6.1", "11.4.0.106"])
def test_a_child_builds_and_reports(
    children: Children, tmp_path: Path, tensorrt_version: str, capfd: pytest.CaptureFixture[str]
) -> None:
    steps: list[str] = []
    fractions: list[tuple[int, int | None]] = []
    built = build_in_child(request_in(tmp_path, tensorrt_version), steps.append, lambda *pair: fractions.append(pair))
    assert isinstance(built, TensorRtBuild)
    assert (built.version, built.layers) == (tensorrt_version, {"fp32": 12})
    assert "workspace: 4096 MiB of the GPU's 8192 MiB that were free" in steps
    assert fractions == sorted(fractions)
    assert (fractions[-1:] == [(1000, 1000)]) == tensorrt_version.startswith("11")
    assert (tmp_path / "engine.plan").is_file()
    assert children.are_gone
    assert capfd.readouterr() == ("", "")


@parametrize("tensorrt_version", ["10.3.0"])
def test_a_child_that_the_system_kills_is_out_of_memory(children: Children, tmp_path: Path, tensorrt_version: str) -> None:
    children.machine(**SLOW)

    def kill(step: str) -> None:
        children.started[0].kill()

    with pytest.raises(BuildError, match=r"killed the build.*memory runs out; the workspace was 64 MiB") as caught:
        build_in_child(request_in(tmp_path, tensorrt_version, workspace_mib=64), kill, ignore)
    assert "--workspace" in caught.value.hint
    assert "swap" in caught.value.hint
    assert not (tmp_path / "engine.plan").exists()


@parametrize("tensorrt_version", ["10.3.0"])
def test_a_child_that_crashes_is_a_failed_build(children: Children, tmp_path: Path, tensorrt_version: str) -> None:
    children.machine(**SLOW)
    with pytest.raises(BuildError, match="SIGSEGV"):
        build_in_child(
            request_in(tmp_path, tensorrt_version), lambda step: children.started[0].send_signal(signal.SIGSEGV), ignore
        )


@parametrize("tensorrt_version", ["10.3.0"])
def test_typed_errors_cross_over_with_their_hints(children: Children, tmp_path: Path, tensorrt_version: str) -> None:
    with pytest.raises(BackendError, match=r"has none under TensorRT 10\.3\.0") as caught:
        build_in_child(request_in(tmp_path, tensorrt_version, "fp16", dla_core=0), ignore, ignore)
    assert "leave out --dla" in caught.value.hint
    children.machine(workspace_needed=1 << 40)
    with pytest.raises(BuildError, match="out of memory") as failed:
        build_in_child(request_in(tmp_path, tensorrt_version), ignore, ignore)
    assert failed.value.exit_code == 5


@parametrize("tensorrt_version", ["8.5.3.1", "10.3.0"])
def test_ctrl_c_ends_the_child_first(
    children: Children, tmp_path: Path, tensorrt_version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    children.machine(**SLOW)
    monkeypatch.setattr(tensorrt_process, "GRACE_S", 1.0)  # before 10, TensorRT cannot be told, so it is killed
    with pytest.raises(KeyboardInterrupt):
        build_in_child(request_in(tmp_path, tensorrt_version), lambda step: signal.raise_signal(signal.SIGINT), ignore)
    assert children.are_gone
    assert children.started[0].returncode == (130 if tensorrt_version.startswith("10") else -signal.SIGKILL)
    assert not (tmp_path / "engine.plan").exists()


@parametrize("tensorrt_version", ["10.3.0"])
def test_a_child_gives_up_when_its_parent_dies(children: Children, tmp_path: Path, tensorrt_version: str) -> None:
    children.machine(**SLOW)
    child = subprocess.Popen(
        [sys.executable, "-m", "edgesod.builder.tensorrt_child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(request_in(tmp_path, tensorrt_version).model_dump_json() + "\n")
    child.stdin.flush()
    child.stdout.readline()
    child.stdin.close()
    child.stdout.close()
    assert child.wait(30) == 130


@parametrize("tensorrt_version", ["8.5.3.1", "10.16.1.11"])
def test_the_whole_build_ends_in_a_folder_that_runs(tmp_path: Path, photographs: Path, tensorrt_version: str) -> None:
    source = write_small(tmp_path / "small.onnx")
    folder = build(recipe("int8"), source, table=photographs, backend="tensorrt", root=tmp_path / "engines")
    manifest = check_manifest(folder)
    assert (manifest.backend, manifest.engine_file) == ("tensorrt", "engine.plan")
    assert set(manifest.sha256) == {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert manifest.tensorrt is not None
    assert manifest.tensorrt.layers["int8"] == 3
    assert manifest.gate.map_mae < manifest.recipe.gate.map_mae
    with Runtime(folder) as runtime:
        assert runtime.backend == "tensorrt"


@parametrize("tensorrt_version", ["11.4.0.106"])
def test_the_command_line_builds_and_refuses(tmp_path: Path, photographs: Path, tensorrt_version: str) -> None:
    source = write_small(tmp_path / "small.onnx")
    command = ["build", "--onnx", str(source), "--backend", "tensorrt", "--out", str(tmp_path / "engines"), "--fp16"]
    done = edgesod(
        *command,
        "--workspace",
        "64",
        "--opt-level",
        "2",
        "--batch",
        "1:2:4",
        "--json",
        cwd=tmp_path,
        PYTHONPATH=os.environ["PYTHONPATH"],
    )
    assert done.returncode == 0, done.stderr
    (manifest,) = (tmp_path / "engines").glob("*/manifest.json")
    made = json.loads(manifest.read_text())["tensorrt"]
    assert (made["optimization_level"], made["batch"], made["typing"]) == (2, [1, 2, 4], "strong")
    refused = edgesod(*command, "--typing", "weak", cwd=tmp_path, PYTHONPATH=os.environ["PYTHONPATH"])
    assert (refused.returncode, "Traceback" in refused.stderr) == (4, False)
    assert "has no weak typing" in refused.stderr
