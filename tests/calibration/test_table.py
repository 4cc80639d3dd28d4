"""The calibration table survives its file, and belongs to one ONNX."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgesod.calibration.table import CalibrationTable, check_table, read_table
from edgesod.errors import InputError, StaleError
from edgesod.recipe import Preprocessing, Recipe


def test_a_table_reads_back_as_it_was_written(table: CalibrationTable, tmp_path: Path) -> None:
    table.write(tmp_path / "table.json")
    assert read_table(tmp_path / "table.json") == table


def test_a_table_says_where_it_comes_from_without_naming_the_machine(
    table: CalibrationTable, photographs: Path, tmp_path: Path
) -> None:
    table.write(tmp_path / "table.json")
    assert table.images == photographs.name
    assert table.num_images == 3
    assert str(photographs.parent) not in (tmp_path / "table.json").read_text()


def test_a_table_of_another_onnx_is_stale(table: CalibrationTable, chain_onnx: Path, tmp_path: Path) -> None:
    recipe = Recipe(model=table.model, size_hw=table.size_hw, precision="int8", preprocessing=table.preprocessing)
    check_table(table, chain_onnx, recipe)
    other = tmp_path / "other.onnx"
    other.write_bytes(chain_onnx.read_bytes() + b"\0")
    with pytest.raises(StaleError, match=r"sha256") as caught:
        check_table(table, other, recipe)
    assert f"edgesod calibrate --onnx {other} --images" in caught.value.hint
    with pytest.raises(StaleError, match="'elsewhere'"):
        table.range_of("elsewhere", "minmax")
    fed_otherwise = recipe.model_copy(update={"preprocessing": Preprocessing(divide_by="max")})
    with pytest.raises(StaleError, match="other preprocessing"):
        check_table(table, chain_onnx, fed_otherwise)


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"onnx_sha256": "short"},
        {"num_images": 0},
        {"ranges": {"image": {"minmax": [0.0, "wide"]}}},
        {"ranges": {"image": {"guessed": [0.0, 1.0]}}},
        {"ranges": {"image": {"minmax": [0.0]}}},
        {"surprise": 1},
    ],
)
def test_a_table_with_a_wrong_entry_is_refused(table: CalibrationTable, tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "table.json"
    path.write_text(json.dumps(table.model_dump(mode="json") | change))
    with pytest.raises(InputError, match=r"table\.json is not a valid calibration table"):
        read_table(path)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe", b'{"schema_version": 1}'])
def test_a_broken_table_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "table.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"table\.json"):
        read_table(path)


def test_values_that_are_not_finite_are_refused(table: CalibrationTable, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    wrong = table.model_dump(mode="json") | {"ranges": {"image": {"minmax": [0.0, float("inf")]}}}
    path.write_text(json.dumps(wrong))
    with pytest.raises(InputError, match=r"table\.json"):
        read_table(path)


def test_naming_the_room_loads_no_heavy_package() -> None:
    code = "import sys, edgesod.calibration, edgesod.export; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert not {"torch", "onnx", "onnxruntime", "onnxsim", "cv2"} & set(done.stdout.split())
