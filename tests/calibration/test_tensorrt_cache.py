"""Calibration caches are TensorRT's: compared with lines that its users have published."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgesod.calibration.table import CalibrationTable
from edgesod.calibration.tensorrt_cache import cache_of_table, format_cache, read_cache
from edgesod.errors import InputError

# a comment in a public reader gives the number for the digits; 1/127 stands for [−1, 1] in another project's guide
PUBLISHED = "TRT-7103-EntropyCalibration2\ndata_0: 4000889d\n(Unnamed Layer* 4) [Fully Connected]_output: 3c010204\n"


def test_published_lines_are_read_and_written(tmp_path: Path) -> None:
    (tmp_path / "published.cache").write_text(PUBLISHED)
    scales = read_cache(tmp_path / "published.cache")
    assert scales == {
        "data_0": pytest.approx(2.008338, abs=1e-6),
        "(Unnamed Layer* 4) [Fully Connected]_output": pytest.approx(1 / 127, rel=1e-7),
    }
    assert format_cache(scales, "EntropyCalibration2", "7.1.3.4").decode() == PUBLISHED


@pytest.mark.parametrize(
    ("version", "number"), [("8.5.3.1", "8503"), ("8.6.1", "8601"), ("10.3.0", "100300"), ("10.16.1.11", "101601")]
)
def test_the_first_line_counts_versions_as_tensorrt_does(version: str, number: str) -> None:
    assert format_cache({"x": 1.0}, "MinMaxCalibration", version).splitlines()[0].decode() == f"TRT-{number}-MinMaxCalibration"


def test_a_table_gives_every_tensor_a_symmetric_scale(table: CalibrationTable, tmp_path: Path) -> None:
    silent = table.model_copy(update={"ranges": table.ranges | {"silent": {"minmax": (0.0, 0.0)}}})
    (tmp_path / "table.cache").write_bytes(cache_of_table(silent, "minmax", "EntropyCalibration2", "8.5.3"))
    scales = read_cache(tmp_path / "table.cache")
    assert scales.pop("silent") > 0  # a scale of zero breaks builds
    assert scales == {
        name: pytest.approx(max(-ranges["minmax"][0], ranges["minmax"][1]) / 127) for name, ranges in table.ranges.items()
    }


@pytest.mark.parametrize("text", ["", "hello\n", "TRT-8503-EntropyCalibration2\n", "TRT-8503-EntropyCalibration2\nx: zz\n",
                                  "TRT-8503-EntropyCalibration2\nx: 00000000\n", "TRT-8503-EntropyCalibration2\nx: 7f800000\n",
                                  "TRT-8503-EntropyCalibration2\nx: 3c01\n", "image: 3c010204\n"])  # fmt: skip
def test_what_is_no_cache_is_an_input_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "odd.cache").write_text(text)
    with pytest.raises(InputError, match="cache"):
        read_cache(tmp_path / "odd.cache")
