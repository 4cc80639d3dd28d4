"""What the page shows and changes."""

from __future__ import annotations

import math
import socket
import sys
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import requests
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from edgesod.errors import BackendError, OutputError, UsageError
from edgesod.processing.look import Look
from edgesod.stream import open_source, run_pipeline
from edgesod.stream.statistics import LiveStatistics
from edgesod.types import Frame, Result
from edgesod.web import monitor, open_page, pictures
from edgesod.web.address import Address
from edgesod.web.metrics import as_prometheus
from tests.helpers.page import LIMIT_S, Body, Run, events_of, parts_of
from tests.helpers.sleeping import sleeping_runtime
from tests.helpers.video import pictures as pictures_of
from tests.helpers.video import stamp_of, write_clip
from tests.helpers.waiting import until


def get(run: Run, path: str) -> requests.Response:
    return requests.get(run.base + path, timeout=LIMIT_S)


def test_the_stream_carries_the_newest_pictures(run: Run) -> None:
    with run.going(), requests.get(run.base + "/stream.mjpg", stream=True, timeout=LIMIT_S) as answer:
        assert answer.headers["Content-Type"].startswith("multipart/x-mixed-replace")
        numbers = []
        for jpeg in islice(parts_of(Body(answer.iter_content(None))), 8):
            picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
            assert picture.shape == (180, 320, 3)
            numbers.append(stamp_of(picture))
    assert len(set(numbers)) == 8, "a picture came twice"


def test_nothing_is_encoded_unless_somebody_looks_and_then_once_for_all(run: Run) -> None:
    made = run.page._pictures
    for _ in range(50):
        run.push()
    assert made.num_encoded == 0
    answers = [requests.get(run.base + "/stream.mjpg", stream=True, timeout=LIMIT_S) for _ in range(4)]
    with run.going():
        streams = [parts_of(Body(answer.iter_content(None))) for answer in answers]
        received = [[next(stream) for stream in streams] for _ in range(6)]
    assert all(len(set(row)) <= 2 for row in received[1:])  # bytes of one picture are the same for everybody
    assert made.num_encoded <= run._num
    for answer in answers:
        answer.close()
    until(lambda: get(run, "/api/state").json()["viewers"] == 0, "leaving")
    before = made.num_encoded
    for _ in range(50):
        run.push()
    assert made.num_encoded == before


def test_next_to_nothing_is_drawn_while_nobody_looks_and_only_what_is_drawn_is_shown(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_drawn, shown = 0, []
    put = run.page._pictures.put
    monkeypatch.setattr(run.page._pictures, "put", lambda image: (shown.append(image.min()), put(image)))

    def render(frame: Frame, _: Result) -> NDArray[np.uint8]:
        nonlocal num_drawn
        num_drawn += 1
        return np.full_like(frame.image, 255)

    source = open_source(write_clip(tmp_path / "clip.mp4", pictures_of(150)))
    report = run_pipeline(source, lambda _: Result(np.zeros((2, 2), np.float32), (72, 128)), render, [run.page])
    assert report.frames == 150
    assert 1 <= len(shown) <= num_drawn < 75
    assert set(shown) == {255}


@pytest.mark.parametrize("channels", [3, 4])
def test_a_snapshot_is_the_picture_at_full_size(run: Run, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_SNAPSHOT_WAIT_S", 0.01)
    assert get(run, "/snapshot.png").status_code == 503  # nothing to show yet
    image = np.random.default_rng(0).integers(0, 256, (90, 1500, channels), np.uint8)
    run.page.write(image, Frame(image[:, :, :3]))
    answer = get(run, "/snapshot.png")
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    shown = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(shown, image)


def test_the_first_source_is_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_SNAPSHOT_WAIT_S", 0.01)
    for source in (1, 0, 2):
        run.page.write(np.full((8, 8, 3), 50 * source, np.uint8), Frame(np.zeros((8, 8, 3), np.uint8), source=source))
    assert not cv2.imdecode(np.frombuffer(get(run, "/snapshot.png").content, np.uint8), cv2.IMREAD_COLOR).any()


def test_switches_change_the_pictures(run: Run) -> None:
    answer = requests.post(run.base + "/api/look", json={"effect": "mask", "threshold": 0.25}, timeout=LIMIT_S)
    assert answer.status_code == 200
    assert (run.look.effect, run.look.threshold) == ("mask", 0.25)
    assert get(run, "/api/state").json()["look"] == answer.json() == run.look.as_dict()
    requests.post(run.base + "/api/look", json={"threshold": 0.75}, timeout=LIMIT_S)
    assert (run.look.effect, run.look.threshold) == ("mask", 0.75)
    with run.going():
        shown = cv2.imdecode(np.frombuffer(get(run, "/snapshot.png").content, np.uint8), cv2.IMREAD_COLOR)
    assert (shown[:, :140] == 255).all()
    assert (shown[:, 180:] == 0).all()
    answer = requests.post(run.base + "/api/look", json={"threshold": None}, timeout=LIMIT_S)
    assert answer.json() == {"effect": "mask", "threshold": None, "background": False}


def test_whoever_watches_hears_the_past_the_present_and_the_end(run: Run) -> None:
    with run.going(), requests.get(run.base + "/api/events", stream=True, timeout=LIMIT_S) as answer:
        heard = events_of(answer.iter_lines())
        name, history = next(heard)
        assert name == "history"
        assert set(history) == {"time_s", "fps", "frame_age_ms"}
        until(lambda: run.statistics.frames > 10, "ten frames")
        name, state = next(item for item in heard if item[1]["statistics"]["frames"] > 10)
        assert name == "state"
        assert state["statistics"]["state"] == "running"
        assert state["statistics"]["source"] == "camera"
        assert {paper["fps"] for paper in state["papers"]} == {25, 30, 40}
        assert set(state["sensors"]) == {"temperatures_c", "power_w"}
        requests.post(run.base + "/api/look", json={"effect": "blur"}, timeout=LIMIT_S)
        assert any(state["look"]["effect"] == "blur" for _, state in islice(heard, 3))  # told at once, not only once a second
        run.source.state = "reconnecting"
        assert any(state["statistics"]["state"] == "reconnecting" for _, state in islice(heard, 3))
        run.page.close()
        last = list(heard)[-1][1]
    assert last["statistics"]["state"] == "ended"


def test_the_past_is_kept_for_whoever_comes_later(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "PERIOD_S", 0.01)
    with run.going():
        until(lambda: len(get(run, "/api/history").json()["fps"]) > 5, "a history")
    history = get(run, "/api/history").json()
    assert history["time_s"] == sorted(history["time_s"])
    assert history["frame_age_ms"][-1] == pytest.approx(30)
    assert history["fps"][-1] > 0


def test_health_is_whether_frames_come(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.push()
    assert get(run, "/healthz").status_code == 200
    monkeypatch.setattr(monitor, "SILENT_AFTER_S", 0.0)
    answer = get(run, "/healthz")
    assert answer.status_code == 503
    assert answer.json()["ok"] is False
    monkeypatch.undo()
    run.statistics.end()
    assert get(run, "/healthz").json()["state"] == "ended"
    assert get(run, "/healthz").status_code == 503


def test_prometheus_reads_the_metrics(run: Run) -> None:
    for _ in range(3):
        run.push()
    run.statistics.add_dropped(7)
    run.statistics.add_late(2)
    run.source.num_reconnects = 4
    answer = get(run, "/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert all(family.documentation and family.type != "unknown" for family in families.values())
    values = {(s.name, *sorted(s.labels.items())): s.value for f in families.values() for s in f.samples}
    assert families["edgesod_frames"].type == "counter"
    assert values["edgesod_frames_total",] == 3
    assert values["edgesod_frames_dropped_total",] == 7
    assert values["edgesod_frames_late_total",] == 2
    assert values["edgesod_source_reconnects_total",] == 4
    assert values["edgesod_state", ("state", "running")] == 1
    assert sum(v for k, v in values.items() if k[0] == "edgesod_state") == 1
    inference = ("edgesod_stage_duration_seconds", ("quantile", "0.5"), ("stage", "inference"))
    assert values[inference] == pytest.approx(0.012)
    assert values["edgesod_frame_age_seconds", ("handover", "done"), ("quantile", "0.95")] == pytest.approx(0.030)
    assert all(math.isfinite(value) for value in values.values())


def test_metrics_hold_whatever_a_name_holds(run: Run) -> None:
    name = 'a "camera"\\ with\nlines {and="braces"}'
    state = run.page._monitor.state()
    state["statistics"]["source"] = name
    state["sensors"] = {"temperatures_c": {"tj": 61.5}, "power_w": {name: 7.25}}
    samples = [s for family in text_string_to_metric_families(as_prometheus(state)) for s in family.samples]
    assert [s.labels["source"] for s in samples if s.name == "edgesod_info"] == [name]
    assert [s.labels["model"] for s in samples if s.name == "edgesod_info"] == [""], "the engine is not loaded yet"
    assert [(s.labels["rail"], s.value) for s in samples if s.name == "edgesod_power_watts"] == [(name, 7.25)]
    assert [s.value for s in samples if s.name == "edgesod_temperature_celsius"] == [61.5]


def test_what_runs_is_told_once_the_engine_is_loaded(run: Run) -> None:
    assert get(run, "/api/state").json()["engine"] == {}
    with sleeping_runtime() as runtime:
        run.page.show_engine(runtime)
    expected = {"model": "tiny", "size": "32×48", "precision": "fp32", "backend": "memory"}
    assert get(run, "/api/state").json()["engine"] == expected | {"threshold": 0.5}
    text = get(run, "/metrics").text
    (info,) = [s for family in text_string_to_metric_families(text) for s in family.samples if s.name == "edgesod_info"]
    assert {name: info.labels[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("8080", "127.0.0.1", 8080),
        (":8080", "127.0.0.1", 8080),
        ("0.0.0.0:80", "0.0.0.0", 80),
        ("[::1]:8080", "::1", 8080),
        ("robot.local:8080", "robot.local", 8080),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == Address(host, port)


@pytest.mark.parametrize(
    "text", ["", "here", ":", ":port", ":65536", "1.2.3.4", "http://localhost:8080", "a:b:80", "a b:80", "::1:80/x"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not an address"):
        Address.parse(text)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OutputError, match=str(port)) as caught:
            open_page(f":{port}", statistics=LiveStatistics(), look=Look())
    assert str(port + 1) in caught.value.hint
    with pytest.raises(OutputError, match=r"cannot be shown at 203\.0\.113\.7"):  # documentation's network: nobody's address
        open_page("203.0.113.7:8080", statistics=LiveStatistics(), look=Look())


def test_without_the_extra_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "edgesod.web.server", raising=False)
    with pytest.raises(BackendError, match="uvicorn") as caught:
        open_page(":0", statistics=LiveStatistics(), look=Look())
    assert caught.value.hint == "pip install fastapi uvicorn"
