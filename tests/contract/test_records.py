"""Records are small, hold no prose, and are what the real wheels give."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from .record import RECORDS, VERSIONS, load, signature_of

ROOT = Path(__file__).parents[2]
WHEELS = os.environ.get("EDGESOD_TENSORRT_WHEELS", "")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_record_is_small_and_holds_signatures_only(version: str) -> None:
    record = load(version)
    assert record.version == version
    assert (RECORDS / f"{version}.json").stat().st_size < 46_000
    methods = [text for entry in record.classes.values() for texts in entry.get("methods", {}).values() for text in texts]
    assert len(methods) > 100
    for text in methods:
        assert str(signature_of(text).return_annotation)
        assert re.fullmatch(r"\([\w\s:,.=\[\]]*\) -> [\w.\[\], ]+", text), text


@pytest.mark.skipif(not WHEELS, reason="EDGESOD_TENSORRT_WHEELS names no folder with the wheels of TensorRT's bindings")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_record_is_what_the_wheel_gives(version: str, tmp_path: Path) -> None:
    wheel = next(Path(WHEELS).glob(f"tensorrt*-{version}-*.whl"), None)
    if wheel is None:
        pytest.skip(f"there is no wheel of {version} in {WHEELS}")
    minor = re.findall(r"-cp3(\d+)-", wheel.name)[0]
    python = sys.executable if sys.version_info[1] == int(minor) else shutil.which(f"python3.{minor}")
    if python is None:
        pytest.skip(f"there is no Python 3.{minor} for {wheel.name}")
    command = [sys.executable, ROOT / "scripts" / "record_tensorrt_api.py", wheel, "--python", python, "--out", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / f"{version}.json").read_text() == (RECORDS / f"{version}.json").read_text()


@pytest.mark.usefixtures("tensorrt")
@pytest.mark.parametrize("tensorrt_version", VERSIONS[-1:])
def test_a_child_process_imports_the_fake_too(tensorrt_version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_MACHINE", '{"dla_cores": 2, "compute_capability": [7, 2]}')
    code = "import tensorrt; m = tensorrt._fake.machine; print(tensorrt.__version__, m.dla_cores, m.compute_capability)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.split(maxsplit=2) == [tensorrt_version, "2", "(7, 2)\n"]


def test_the_fake_is_what_import_finds(tensorrt: ModuleType, tensorrt_version: str) -> None:
    import tensorrt as found

    assert found is tensorrt
    assert found.__version__ == tensorrt_version
