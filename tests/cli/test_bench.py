"""``edgesod bench``: one JSON object, one table, one page, and how each of its options ends."""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from edgesod.bench import peaks
from edgesod.bench.peaks import MeasuredPeaks
from edgesod.bench.roofline import Peaks
from edgesod.cli import bench
from edgesod.errors import OutputError
from tests.helpers.engines import SIZE_HW, make_engine


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny engine on a machine whose limits are known."""
    known = MeasuredPeaks(
        Peaks(gb_s=10, fp32=0.1, fp16=0.1, int8=0.4), 1, {"fp32": "known", "int8": "known", "memory": "known"}
    )
    monkeypatch.setattr(peaks, "measure_peaks", lambda *_: known)
    return make_engine(tmp_path / "engine")


def _json(capsys: pytest.CaptureFixture[str], engine: Path, **options: object) -> dict[str, object]:
    bench.command(engine, duration=0.05, threads=1, as_json=True, **options)
    return dict(json.loads(capsys.readouterr().out))


def test_the_json_has_what_others_rely_on(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = _json(capsys, engine)
    assert value["throughput_fps"] > 0
    assert {"mean", "p50", "p90", "p95", "p99"} <= value["latency_ms"].keys()
    assert {"preprocess", "inference", "postprocess", "mask", "end_to_end"} <= value["stages_ms"].keys()
    assert value["threads"] == 1
    assert datetime.fromisoformat(value["environment"]["measured_at"]).utcoffset() == timedelta(0)
    assert {"cpu", "cores", "system", "governor", "clocks_mhz", "versions"} <= value["environment"].keys()
    assert value["sensors"].keys() == {"temperatures_c", "power_w", "energy_j_per_frame"}
    assert all(math.isfinite(stage["p99"]) for stage in value["stages_ms"].values())


def test_the_share_of_the_limit_is_that_of_the_engines_own_onnx(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = _json(capsys, engine)
    found, (height, width) = value["roofline"], SIZE_HW
    macs = height * width * 3 * 3 * 3  # one 3×3 convolution of three channels
    moved = 4 * (height * width * (3 + 1) + 27)
    assert (found["macs"], found["bytes"]) == (macs, moved)
    least_ms = max(2e3 * macs / 0.1e12, 1e3 * moved / 10e9)
    assert found["share"] == pytest.approx(least_ms / value["latency_ms"]["p50"], abs=1e-4)
    assert found["bound_by"] == "memory"
    assert _json(capsys, engine, roofline=False)["roofline"] is None


def test_soak_sweep_and_page(tmp_path: Path, engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = _json(capsys, engine, soak=0.005, sweep=True, html=tmp_path / "bench.html")
    assert value["soak"]["frames"] > 0
    assert value["soak"]["minutes"] >= 0.005
    assert len(value["soak"]["windows"]) >= 2
    points = value["sweep"]["points"]
    assert (points[0]["streams"], points[0]["threads"]) == (1, 1)
    assert all(said in value["sweep"]["note"] for said in ("batch 1", "--batch"))
    text = (tmp_path / "bench.html").read_text(encoding="utf-8")
    assert "Soak: speed" in text
    assert "Throughput against latency" in text


def test_the_table_says_the_same(tmp_path: Path, engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.command(engine, duration=0.05, threads=1, soak=0.002, sweep=True)
    out = capsys.readouterr().out
    for said in (
        "end_to_end",
        "of the FP32 limit, memory-bound",
        "32×48 fp32, onnxruntime on 1 thread",
        "streams × threads",
        "soak of",
        "40 fps of U²-NetP",
    ):
        assert said in out, said


def test_ctrl_c_in_a_soak_keeps_what_there_is(
    tmp_path: Path, engine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgesod.runtime import Runtime

    real, calls = Runtime._run, []

    def interrupted(self: Runtime, image: np.ndarray) -> object:
        calls.append(1)
        if len(calls) == 400:
            raise KeyboardInterrupt
        return real(self, image)

    monkeypatch.setattr(Runtime, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench.command(engine, duration=0, iterations=10, warm_up=0, threads=1, soak=60, html=tmp_path / "b.html", as_json=True)
    assert json.loads(capsys.readouterr().out)["soak"]["interrupted"] is True
    assert (tmp_path / "b.html").is_file()


def test_ctrl_c_in_a_sweep_keeps_the_points_there_are(
    tmp_path: Path, engine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgesod.bench import sweep

    real, calls = sweep._measure, []

    def interrupted(*what: object) -> object:
        calls.append(what)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*what)

    monkeypatch.setattr(sweep, "_measure", interrupted)
    monkeypatch.setattr(sweep, "settings", lambda _: [(1, 1), (2, 1), (3, 1)])
    with pytest.raises(KeyboardInterrupt):
        bench.command(engine, duration=0, warm_up=0, threads=1, sweep=True, html=tmp_path / "b.html", as_json=True)
    found = json.loads(capsys.readouterr().out)["sweep"]
    assert found["interrupted"] is True
    assert [(point["streams"], point["threads"]) for point in found["points"]] == [(1, 1)]
    assert "Throughput against latency" in (tmp_path / "b.html").read_text(encoding="utf-8")


def test_no_time_at_all_is_a_frame_each(tmp_path: Path, engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.command(engine, duration=0, warm_up=0, threads=1, soak=0, sweep=True, html=tmp_path / "b.html", as_json=True)
    value = json.loads(capsys.readouterr().out)
    assert value["soak"]["frames"] >= 1
    assert all(point["latency_ms"]["n"] >= point["streams"] for point in value["sweep"]["points"])
    assert "Soak: speed" in (tmp_path / "b.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("option", ["html", "submit"])
def test_a_file_that_cannot_be_written_does_not_cost_the_measurement(
    tmp_path: Path, engine: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        _json(capsys, engine, **{option: tmp_path / "file" / "page"})
    assert json.loads(capsys.readouterr().out)["throughput_fps"] > 0


def test_a_network_whose_work_cannot_be_counted_is_timed_all_the_same(
    engine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgesod.bench import roofline
    from edgesod.errors import InputError

    def cannot(_: Path) -> None:
        raise InputError("the work cannot be counted")

    monkeypatch.setattr(roofline, "work_of", cannot)
    assert _json(capsys, engine)["roofline"] == {"unknown": "the work cannot be counted"}
    bench.command(engine, duration=0.05, threads=1)
    assert "roofline: the work cannot be counted" in capsys.readouterr().out
