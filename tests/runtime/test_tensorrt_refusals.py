"""What keeps TensorRT from running is said in one sentence, before TensorRT is touched, with exit code 4."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgesod.errors import BackendError, InputError, ManifestMismatch
from edgesod.manifest import check_gpu, read_manifest
from edgesod.runtime import Runtime, available_backends, choose_backend, open_session, tensorrt_version
from edgesod.runtime.cuda import VARIABLE, driver_is_installed, memory, open_cuda
from tests.contract import fixtures
from tests.contract.machine import Machine
from tests.helpers.cli import ROOT, edgesod
from tests.helpers.tensorrt import NEWEST, make_tensorrt_engine, nothing_lives, write_plan

LIMIT_S = 5


# -- as commands -------------------------------------------------------------------------------------------------------


def _assert_refused(*words: str, cwd: Path, says: str, path: tuple[Path, ...] = (), **env: str) -> None:
    began = time.perf_counter()
    done = edgesod(*words, cwd=cwd, PYTHONPATH=os.pathsep.join(map(str, (*path, ROOT))), **env)
    seconds = time.perf_counter() - began
    assert done.returncode == 4, done.stderr
    error, hint = (line for line in done.stderr.splitlines() if not line.startswith("backend"))
    assert error.startswith("edgesod: error: ")
    assert says in error
    assert hint.startswith("  try: ")
    assert done.stdout == ""
    # against the interpreter's own start, for want of an idle machine: a refusal is no more than a few imports
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import edgesod.cli, edgesod.runtime"], check=True, cwd=ROOT)
    assert seconds < max(LIMIT_S, 10 * (time.perf_counter() - began))


BUILD = ("build", "--model", "u2netp", "--fp16", "--backend", "tensorrt")


def test_no_tensorrt(tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed here")
    says = "tensorrt cannot be used: TensorRT is not installed"
    if not driver_is_installed():
        says += ", and there is no NVIDIA driver"
    _assert_refused(*BUILD, cwd=tmp_path, says=says)


def test_no_driver(tmp_path: Path) -> None:
    pytest.importorskip("cuda.bindings.runtime", exc_type=ImportError)
    if driver_is_installed():
        pytest.skip("there is an NVIDIA driver here")
    _booby_trap(tmp_path)
    _assert_refused(*BUILD, cwd=tmp_path, path=(tmp_path,), says="there is no NVIDIA driver here", **{VARIABLE: "cuda-python"})


def test_real_libraries_without_a_driver(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_lean", reason="pip install tensorrt-lean-cu13: any use of it here is a segmentation fault")
    pytest.importorskip("cuda.bindings.runtime", exc_type=ImportError)
    if driver_is_installed():
        pytest.skip("there is an NVIDIA driver here")
    (tmp_path / "tensorrt.py").write_text("from tensorrt_lean import *\nfrom tensorrt_lean import __version__\n")
    _assert_refused(*BUILD, cwd=tmp_path, path=(tmp_path,), says="there is no NVIDIA driver here", **{VARIABLE: "cuda-python"})


def test_no_device(tmp_path: Path) -> None:
    _booby_trap(tmp_path)
    _assert_refused(
        *BUILD,
        cwd=tmp_path,
        path=(tmp_path,),
        says="tensorrt cannot be used: the NVIDIA driver finds no GPU",
        CUDA_VISIBLE_DEVICES="",
        **{VARIABLE: "memory"},
    )


def test_no_cuda_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("edgesod.runtime.cuda.select._is_installed", lambda name: False)
    monkeypatch.setattr(tensorrt_version, "_is_installed", lambda: True)
    with pytest.raises(BackendError, match="no CUDA package is installed") as caught:
        choose_backend("fp16", "tensorrt")
    assert "pip install cuda-python" in caught.value.hint


def test_too_old(tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text("__version__ = '8.4.1.5'\n")
    _assert_refused(
        *BUILD,
        cwd=tmp_path,
        path=(tmp_path,),
        says="TensorRT 8.4.1.5 is too old: edgesod needs 8.5 or later",
        CUDA_VISIBLE_DEVICES="0",
        **{VARIABLE: "memory"},
    )


def test_half_installed(tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open shared object file')\n")
    says = "TensorRT does not load: libnvinfer.so.10: cannot open shared object file"
    environment = {VARIABLE: "memory", "CUDA_VISIBLE_DEVICES": "0"}
    _assert_refused(*BUILD, cwd=tmp_path, path=(tmp_path,), says=says, **environment)


@NEWEST
def test_engine_of_another_gpu(tmp_path: Path, tensorrt: ModuleType, tensorrt_version: str) -> None:
    other = memory.GPU.model_copy(update={"name": "Orin"})
    folder = make_tensorrt_engine(tmp_path / "engine", tensorrt, gpu=other)
    path = (Path(fixtures.__file__).parent / "on_path",)
    environment = {VARIABLE: "memory", "CUDA_VISIBLE_DEVICES": "0", "FAKE_TENSORRT": tensorrt_version}
    says = "was built with Orin (compute capability 8.7), this machine has in-memory GPU (compute capability 8.7)"
    _assert_refused("inspect", "--engine", str(folder), cwd=tmp_path, path=path, says=says, **environment)


@pytest.mark.parametrize("tensorrt_version", ["8.5.3.1", "11.4.0.106"])
def test_inspect_times_layers(tmp_path: Path, tensorrt: ModuleType, tensorrt_version: str) -> None:
    folder = make_tensorrt_engine(tmp_path / "engine", tensorrt)
    path = os.pathsep.join(map(str, (Path(fixtures.__file__).parent / "on_path", ROOT)))
    environment = {VARIABLE: "memory", "CUDA_VISIBLE_DEVICES": "0", "FAKE_TENSORRT": tensorrt_version, "PYTHONPATH": path}
    done = edgesod("inspect", "--engine", str(folder), "--layers", "--json", cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    layers = json.loads(done.stdout)["layers"]
    assert [layer["name"] for layer in layers] == ["sigmoid", "conv"]  # the slowest first
    done = edgesod("inspect", "--engine", str(folder), cwd=tmp_path, **environment)
    assert "2 fp32" in done.stdout
    assert "in-memory GPU" in done.stdout


def _booby_trap(folder: Path) -> None:
    """Put a TensorRT there that says so when it is so much as imported."""
    (folder / "tensorrt.py").write_text("import sys; sys.stderr.write('TensorRT was touched'); raise SystemExit(139)\n")


def test_old_pythons_are_told() -> None:
    code = "import runpy, sys; sys.version_info = (3, 8, 10); runpy.run_module('edgesod', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 4
    assert done.stderr.startswith("edgesod: error: this is Python 3.8, edgesod needs 3.10 or later\n  try: update a Jetson")
    for name in ("__init__", "__main__", "errors"):  # what such a Python gets to read before it is told
        ast.parse((ROOT / f"edgesod/{name}.py").read_text(encoding="utf-8"), feature_version=(3, 8))


@pytest.mark.parametrize("name", ["python3.8", "python3.9"])
def test_old_pythons_that_are_there_say_it_themselves(name: str) -> None:
    if shutil.which(name) is None or subprocess.run([name, "-V"], capture_output=True, check=False).returncode:
        pytest.skip(f"there is no {name}")
    command = [name, "-B", "-m", "edgesod", "build", "--model", "u2netp"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (4, "")
    number = name.removeprefix("python")
    assert done.stderr.startswith(
        f"edgesod: error: this is Python {number}, edgesod needs 3.10 or later\n  try: update a Jetson"
    )
    assert len(done.stderr.splitlines()) == 2


# -- in the process ----------------------------------------------------------------------------------------------------


def test_jetpack_5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = tmp_path / "nv_tegra_release"
    monkeypatch.setattr(tensorrt_version, "_L4T", release)
    monkeypatch.setattr(tensorrt_version, "_is_installed", lambda: False)
    release.write_text("# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64\n")
    with pytest.raises(BackendError, match=r"JetPack 5, whose TensorRT is for Python 3\.8") as caught:
        choose_backend("fp16", "tensorrt")
    assert caught.value.exit_code == 4
    assert "JetPack 6" in caught.value.hint
    release.write_text("# R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic, EABI: aarch64\n")
    with pytest.raises(BackendError, match="TensorRT is not installed") as caught:
        choose_backend("fp16", "tensorrt")
    assert "--system-site-packages" in caught.value.hint


@NEWEST
def test_no_device_never_touches_tensorrt(tmp_path: Path, tensorrt: ModuleType, machine: Machine, driver: Any) -> None:
    plan = write_plan(tmp_path / "m.plan", tensorrt)
    machine.has_device = False
    with memory.simulated(gpus=()):
        for what in (lambda: choose_backend("fp32", "tensorrt"), lambda: open_session(plan, "fp32")):
            with pytest.raises(BackendError, match="finds no GPU"):
                what()
        assert not available_backends()["tensorrt"].is_usable
        assert choose_backend("fp32")[0] != "tensorrt"
    assert machine.touched == []


@pytest.mark.parametrize("tensorrt_version", ["10.3.0"])
def test_a_tensorrt_that_does_not_start_says_why(
    tmp_path: Path, tensorrt: ModuleType, machine: Machine, driver: memory.Driver
) -> None:
    plan = write_plan(tmp_path / "m.plan", tensorrt)
    machine.has_device = False
    with pytest.raises(BackendError, match=r"TensorRT 10\.3\.0 does not work with in-memory GPU.*CUDA initialization failure"):
        open_session(plan, "fp32")
    assert sum(driver.live().values()) == 0


def test_engines_for_a_dla_are_loaded_on_their_core(tmp_path: Path, tensorrt: ModuleType, driver: memory.Driver) -> None:
    cores: list[int] = []
    deserialise = tensorrt.Runtime.deserialize_cuda_engine

    def watch(runtime: Any, plan: bytes) -> Any:
        cores.append(runtime.DLA_core)
        return deserialise(runtime, plan)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensorrt.Runtime, "deserialize_cuda_engine", watch)
        for core in (None, 1):
            folder = make_tensorrt_engine(tmp_path / f"engine{core}", tensorrt, dla_core=core)
            open_session(folder / "engine.plan", "fp32").close()
    assert cores == [-1, 1]


def test_where_there_is_a_gpu_it_is_preferred(tensorrt: ModuleType, driver: memory.Driver, tensorrt_version: str) -> None:
    state = available_backends()["tensorrt"]
    assert state.is_usable
    assert state.text == f"{tensorrt_version} on {memory.GPU.text}, by memory"
    for precision in ("fp32", "fp16", "int8"):
        assert choose_backend(precision)[0] == "tensorrt"
    assert choose_backend("fp32", reads_onnx=True)[0] != "tensorrt"
    with pytest.raises(BackendError, match="tensorrt cannot be used: it does not run bf16"):
        choose_backend("bf16", "tensorrt")
    assert driver.live()["contexts"] == 0


@NEWEST
def test_files_that_are_not_for_it(tmp_path: Path, tensorrt: ModuleType, driver: memory.Driver) -> None:
    plan = write_plan(tmp_path / "m.plan", tensorrt)
    with pytest.raises(BackendError, match=r"tensorrt does not run .*m\.onnx"):
        open_session(plan.with_suffix(".onnx"), "fp32", "tensorrt")
    with pytest.raises(BackendError, match=r"onnxruntime does not run .*m\.plan"):
        open_session(plan, "fp32", "onnxruntime")
    with pytest.raises(InputError, match="no engine at"):
        open_session(tmp_path / "missing.engine", "fp32")
    assert sum(driver.live().values()) == 0


def test_engines_that_it_does_not_take(tmp_path: Path, tensorrt: ModuleType, driver: memory.Driver, machine: Machine) -> None:
    here = tensorrt.__version__
    alien = write_plan(tmp_path / "alien.plan", tensorrt, version="10.7.0.23")
    with pytest.raises(BackendError, match="does not say what it was built with") as caught:
        open_session(alien, "fp32")
    assert f"TensorRT {here} on in-memory GPU" in str(caught.value)
    assert "edgesod build --model NAME --backend tensorrt" in caught.value.hint
    alien.write_bytes(b"this is no engine")
    with pytest.raises(BackendError, match="cannot be deserialised"):
        open_session(alien, "fp32")
    # the manifest says it fits, and TensorRT says it does not
    folder = make_tensorrt_engine(tmp_path / "engine", tensorrt, plan={"version": "10.7.0.23"})
    with pytest.raises(ManifestMismatch, match=rf"was built with TensorRT {here} on .*; TensorRT {here} on") as caught:
        Runtime(folder)
    assert "edgesod build --model tiny --fp32 --backend tensorrt" in caught.value.hint
    del caught
    assert nothing_lives(machine)


ORIN = memory.GPU.model_copy(update={"name": "Orin"})
NEWER = memory.GPU.model_copy(update={"compute_capability": (9, 0)})


@NEWEST
@pytest.mark.parametrize(
    ("build", "words"),
    [
        ({"version": "10.3.0"}, r"built with TensorRT 10\.3\.0, this machine has TensorRT 11\.4\.0\.106"),
        ({"version": "11.4.0.105"}, r"built with TensorRT 11\.4\.0\.105, this machine has TensorRT 11\.4\.0\.106"),
        (
            {"gpu": ORIN},
            r"built with Orin \(compute capability 8\.7\), this machine has in-memory GPU \(compute capability 8\.7",
        ),
        ({"gpu": NEWER}, r"compute capability 9\.0\), this machine has in-memory GPU \(compute capability 8\.7"),
        ({"gpu": NEWER, "hardware_compatibility": "same-compute-capability"}, r"capability 9\.0\), this .* capability 8\.7"),
        (
            {"gpu": memory.GPU.model_copy(update={"driver": (13, 0)})},
            r"a driver for CUDA 13\.0, this machine has an older one, for CUDA 12\.6",
        ),
        ({"version": "8.6.1", "is_version_compatible": True}, r"TensorRT 8\.6\.1, this machine has TensorRT 11"),
    ],
)
def test_mismatches_name_both_sides_before_loading(
    tmp_path: Path, tensorrt: ModuleType, machine: Machine, driver: memory.Driver, build: dict[str, Any], words: str
) -> None:
    folder = make_tensorrt_engine(tmp_path / "engine", tensorrt, **build)
    for what in (lambda: Runtime(folder), lambda: open_session(folder / "engine.plan", "fp32")):
        with pytest.raises(ManifestMismatch, match=words) as caught:
            what()
        assert "`edgesod build --model tiny --fp32 --backend tensorrt`" in caught.value.hint
    assert machine.touched == []
    assert sum(driver.live().values()) == 0


@NEWEST
@pytest.mark.parametrize(
    "build",
    [
        {},
        {"gpu": ORIN, "hardware_compatibility": "same-compute-capability"},
        {"gpu": ORIN, "hardware_compatibility": "ampere-plus"},
        {"gpu": memory.GPU.model_copy(update={"driver": (12, 2)})},
        {"version": "10.3.0", "is_version_compatible": True},
        {"version": "11.0.0", "is_version_compatible": True},
    ],
)
def test_what_fits_is_not_refused(tmp_path: Path, tensorrt: ModuleType, driver: memory.Driver, build: dict[str, Any]) -> None:
    folder = make_tensorrt_engine(tmp_path / "engine", tensorrt, **build)
    with open_cuda() as cuda:
        check_gpu(folder, read_manifest(folder), cuda.device_info(), tensorrt.__version__)


@NEWEST
def test_a_manifest_without_a_record_is_refused(tmp_path: Path, tensorrt: ModuleType, driver: memory.Driver) -> None:
    folder = make_tensorrt_engine(tmp_path / "engine", tensorrt)
    read_manifest(folder).model_copy(update={"tensorrt": None}).write(folder)
    with pytest.raises(ManifestMismatch, match="does not say which TensorRT and GPU"):
        open_session(folder / "engine.plan", "fp32")


@NEWEST
@pytest.mark.parametrize("version", ["odd", "10.odd", "", "10"])
def test_odd_versions_in_manifests(tmp_path: Path, tensorrt: ModuleType, driver: memory.Driver, version: str) -> None:
    folder = make_tensorrt_engine(tmp_path / "engine", tensorrt)
    text = (folder / "manifest.json").read_text()
    assert f'"version": "{tensorrt.__version__}"' in text
    (folder / "manifest.json").write_text(text.replace(f'"version": "{tensorrt.__version__}"', f'"version": "{version}"'))
    with pytest.raises(InputError, match=r"not a valid manifest: tensorrt\.version"):
        open_session(folder / "engine.plan", "fp32")


@NEWEST
def test_code_in_engines_is_run_only_from_the_file_that_was_built(
    tmp_path: Path, tensorrt: ModuleType, driver: memory.Driver
) -> None:
    plan = {"version": "10.3.0", "is_version_compatible": True}
    folder = make_tensorrt_engine(tmp_path / "engine", tensorrt, plan=plan, **plan)
    open_session(folder / "engine.plan", "fp32").close()
    (folder / "engine.plan").write_bytes((folder / "engine.plan").read_bytes() + b"\0")
    with pytest.raises(ManifestMismatch, match="sha256"):
        open_session(folder / "engine.plan", "fp32")
    assert sum(driver.live().values()) == 0
