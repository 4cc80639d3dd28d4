"""``edgesod run`` ends when it is told to, whatever it is doing: soon, with its numbers, and with files that play."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import av
import pytest

from tests.helpers.cli import ROOT
from tests.helpers.video import pictures, presentation_times, write_clip
from tests.helpers.waiting import until

LIMIT_S = 60
LIVE = "synthetic://?width=320&height=240"

# edgesod with a network that takes the seconds of its first argument, and an engine that takes those of its second to open
_PROGRAM = """
import sys, time
from edgesod.cli import _runtime, main
from tests.helpers.sleeping import sleeping_runtime
network_s, opening_s = float(sys.argv.pop(1)), float(sys.argv.pop(1))
def open_runtime(*_, **__):
    print("opening", file=sys.stderr, flush=True)
    time.sleep(opening_s)
    runtime = sleeping_runtime(network_s)
    runtime.warm_up = lambda: None
    return runtime
_runtime.open_runtime = open_runtime
_runtime.build_default_if_missing = lambda *_: None
main()
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts ``edgesod run`` in ``tmp_path``."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*words: str, network_s: float = 0.01, opening_s: float = 0.0) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(network_s), str(opening_s), "run", *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def terminate(process: subprocess.Popen[bytes], started_s: float) -> tuple[bytes, str]:
    """Send SIGTERM; return stdout and stderr of a process that ended soon: two seconds, and what this machine is slow or busy."""
    begun_s = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    process.wait(LIMIT_S)  # nobody reads what it prints, until it is over
    out, err = process.communicate()
    assert process.returncode == 130, err.decode()
    assert time.perf_counter() - begun_s < 5 + started_s
    assert b"Traceback" not in err
    return out, err.decode()


def written(folder: Path, at_least: int = 1) -> Callable[[], bool]:
    return lambda: any(path.stat().st_size >= at_least for path in folder.glob(".out-*.mp4"))


def test_while_a_stream_is_opened_that_does_not_answer(start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        process = start(f"rtsp://me:secret@127.0.0.1:{server.getsockname()[1]}/x", "--out", "out.mp4")
        server.settimeout(LIMIT_S)
        begun_s = time.perf_counter()
        peer, _ = server.accept()
        with peer:
            _, err = terminate(process, time.perf_counter() - begun_s)
    assert "secret" not in err
    assert os.listdir(tmp_path) == []


def test_while_the_engine_is_opened(start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    process = start(LIVE, "--out", "out.mp4", opening_s=60)
    assert process.stderr is not None
    begun_s = time.perf_counter()
    assert process.stderr.readline() == b"opening\n"
    terminate(process, time.perf_counter() - begun_s)
    assert os.listdir(tmp_path) == []


def test_while_a_live_source_runs(start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    process = start(LIVE, "--out", "out.mp4", "--json")
    started_s = until(written(tmp_path, 2000))
    out, _ = terminate(process, started_s)
    report = json.loads(out)
    assert report["interrupted"]
    assert report["frames"] == len(presentation_times(tmp_path / "out.mp4")) > 0
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_while_a_clip_runs(start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.mp4", pictures(1000, (36, 128)))
    process = start(str(clip), "--out", "out.mp4", "--json")
    started_s = until(written(tmp_path))
    time.sleep(0.5)
    out, _ = terminate(process, started_s)
    assert 0 < json.loads(out)["frames"] == len(presentation_times(tmp_path / "out.mp4")) < 1000


def test_while_the_network_does_not_come_back(start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    process = start(LIVE, "--out", "out.mp4", "--json", network_s=60)
    assert process.stderr is not None
    begun_s = time.perf_counter()
    assert process.stderr.readline() == b"opening\n"
    started_s = time.perf_counter() - begun_s
    time.sleep(0.5)
    out, err = terminate(process, started_s)
    assert json.loads(out)["frames"] == 0
    assert "inference does not come back" in err


def test_while_nobody_takes_the_raw_pictures(start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    process = start(LIVE, "--out", "out.mp4", "--out", "-")
    started_s = until(written(tmp_path, 0))
    time.sleep(2)
    _, err = terminate(process, started_s)
    assert "standard output" in err
    assert len(presentation_times(tmp_path / "out.mp4")) >= 1


def test_a_json_log_beside_raw_pictures_holds_the_report_as_one_line(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    out, err = start(LIVE, "--max-frames", "2", "--out", "-", "--log-format", "json").communicate(timeout=LIMIT_S)
    assert len(out) == 2 * 320 * 240 * 3
    first, *lines = err.decode().splitlines()
    assert first == "opening"
    assert json.loads(lines[-1])["result"]["frames"] == 2
    assert all("message" in json.loads(line) for line in lines)


_FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
"""


def test_a_full_disk_ends_a_live_run_with_its_error_and_keeps_what_was_recorded(
    tmp_path: Path,
) -> None:
    words = ["0.01", "0", "run", LIVE, "--out", "out.mp4"]
    done = subprocess.run(
        [sys.executable, "-c", _FULL + _PROGRAM, *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 5, done.stderr
    assert "cannot write out.mp4: File too large" in done.stderr
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) > 0
