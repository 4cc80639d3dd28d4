"""The page of a measurement: whole, right, and without a thought of any other file or host."""

from __future__ import annotations

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from edgesod.bench import bench, plots
from edgesod.bench.measure import BenchReport
from edgesod.bench.page import page, write_page
from edgesod.bench.roofline import Peaks, Work, standing
from edgesod.bench.soak import SoakReport, Window
from edgesod.bench.svg import Axis, number, round_step, span
from edgesod.timing import LatencySummary
from tests.helpers.engines import RECIPE
from tests.helpers.sleeping import sleeping_runtime

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Reader(HTMLParser):
    """Collects tags, attributes and words, and insists that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: set[str] = set()
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def measured() -> tuple[dict[str, Any], BenchReport]:
    """A short measurement with everything that a page may show; its model has a name that has to be escaped."""
    with sleeping_runtime(0.001, recipe=RECIPE) as runtime:
        report = bench(runtime, np.zeros((40, 60, 3), np.uint8), warm_up_ms=0, iterations=30, duration_s=0)
        value = report.as_dict(runtime)
    value["model"] = "<em>&tiny"
    value["warnings"] = ["a < b & c"]
    value["sensors"] = {
        "temperatures_c": {"cpu": {"first": 40.0, "last": 50.0, "highest": 51.5}},
        "power_w": {"VDD_IN": 9.5},
        "energy_j_per_frame": {"VDD_IN": 0.042},
    }
    peaks = Peaks(gb_s=20, fp32=0.2, fp16=0.2, int8=0.7)
    value["roofline"] = standing(Work(10**8, 10**5, 10**6), "fp32", peaks, value["latency_ms"]["p50"]) | {"peaks_from": "here"}
    windows = tuple(Window(60.0 * k, 20.0 + k, 1, 2, 100.0 + k, {"cpu": 40.0 + k}, {"VDD_IN": 9.0}) for k in range(1, 6))
    value["soak"] = SoakReport(windows, 99, False).as_dict()
    latency = LatencySummary.from_ms([1, 2]).as_dict()
    value["sweep"] = {"note": "streams", "points": [{"streams": 2, "threads": 1, "fps": 9.0, "latency_ms": latency}]}
    return value, report


@pytest.fixture(scope="module")
def text(measured: tuple[dict[str, Any], BenchReport]) -> str:
    return page(*measured)


def test_it_opens_offline(text: str) -> None:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    fetched = {"src", "srcset", "href", "xlink:href", "action", "data", "poster", "background"}
    assert [attribute for attribute in reader.attributes if attribute[1] in fetched] == []
    assert not reader.tags & {"script", "link", "iframe", "object", "embed", "img", "base", "form"}
    assert "@import" not in text
    assert "url(" not in text
    assert not re.search(r"\w+://", text)
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'") in reader.attributes
    assert "prefers-color-scheme: dark" in text


def test_what_was_measured_is_on_it(text: str, measured: tuple[dict[str, Any], BenchReport]) -> None:
    value, report = measured
    reader = Reader()
    reader.feed(text)
    words = "".join(reader.words)
    for said in (
        "<em>&tiny",
        "a < b & c",
        f"{report.throughput_fps:.1f}",
        f"{value['roofline']['share']:.0%} of the limit",
        "42 mJ",
        "51.5 °C",
        "+60.00 MB an hour",
        value["environment"]["python"],
    ):
        assert said in words, said
    assert "<em>" not in text, "a name is text, never markup"
    raw = re.search(r"<pre>(.*)</pre>", text, re.S)
    assert raw is not None
    assert json.loads(unescape(raw[1])) == json.loads(json.dumps(value))
    for svg in re.findall(r"<svg.*?</svg>", text, re.S):
        ET.fromstring(svg)
    assert text.count("<svg") == 8


def test_bars_are_as_long_as_frames_a_second(text: str) -> None:
    found = re.findall(r'width:([\d.]+)%"></span></span><span class="value">([\d.\u2009]+)', plots.fps_bars(20, 10))
    assert [float(value) for _, value in found] == [10, 20, 25, 30, 40]
    assert [float(width) for width, _ in found] == [25, 50, 62.5, 75, 100]


def test_every_frame_is_in_the_histogram_or_said_to_be_beyond() -> None:
    values = [*np.random.default_rng(0).normal(20, 1, 500).tolist(), 400.0, 500.0]
    drawn = plots.histogram(values)
    shown = sum(int(n) for n in re.findall(r"ms: (\d+)</title>", drawn))
    assert shown == 500
    assert "2 slower than shown, up to 500.0 ms" in drawn
    for share in (50, 95, 99):
        assert f"p{share} {np.percentile(values, share):.2f} ms" in drawn


def test_a_long_timeline_keeps_its_slowest_frame() -> None:
    values = np.full(5000, 10.0)
    values[1234] = 80
    points = re.findall(r'points="([^"]+)"', plots.timeline(np.arange(5000) / 30, values.tolist()))
    assert len(points) == 2
    slowest, median = ([float(p.split(",")[1]) for p in line.split()] for line in points)
    assert len(slowest) == plots.MAX_POINTS
    assert min(slowest) < min(median) - 50, "the picture's y grows downwards"


def test_axes() -> None:
    axis = Axis(1, 1000, "", is_log=True)
    assert [axis.at(value) for value in (1, 10, 1000, 5000, 0)] == pytest.approx([0, 1 / 3, 1, 1, 0])
    assert axis.ticks() == [1, 10, 100, 1000]
    assert Axis(0, 10, "").ticks() == pytest.approx([0, 2, 4, 6, 8, 10])
    assert Axis(41.2, 41.4, "").ticks() == pytest.approx([41.2, 41.25, 41.3, 41.35, 41.4])
    assert [round_step(step) for step in (0.7, 1, 1.1, 2.2, 3, 70, 0)] == [1, 1, 2, 2.5, 5, 100, 1]
    assert Axis(5, 5, "").at(5) == 0.5
    assert Axis(0, 2.4, "", is_whole=True).ticks() == [0, 1, 2]
    assert Axis(0, 12, "", is_whole=True).ticks() == [0, 2, 4, 6, 8, 10, 12]


def test_what_hardly_moves_looks_steady() -> None:
    low, high = span([311.87, 311.91], 0.25)
    assert high - low > 0.02 * 311
    assert len({number(tick) for tick in Axis(low, high, "").ticks()}) == len(Axis(low, high, "").ticks()), (
        "labels say the same"
    )
    assert span([1.0, 3.0], 0.25) == (0.5, 3.5)
    assert span([0.0, 0.0]) == (-1, 1)


def test_it_is_written_whole_or_not_at_all(tmp_path: Path, measured: tuple[dict[str, Any], BenchReport]) -> None:
    from edgesod.errors import OutputError

    write_page(tmp_path / "new" / "bench.html", *measured)
    assert (tmp_path / "new" / "bench.html").read_text(encoding="utf-8").endswith("</html>\n")
    with pytest.raises(OutputError):
        write_page(tmp_path / "new" / "bench.html" / "x.html", *measured)
