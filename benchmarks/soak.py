"""Leave a run going for so many minutes on a stream without end, and see whether anything grows.

    python benchmarks/soak.py 20 --engine engines/u2netp-320-int8
    python benchmarks/soak.py 20 rtsp://127.0.0.1:8554/clip --sleep-ms 20 --threads 1

It records H.264, fills a ring, and counts. Once a second it notes resident memory, threads, open files and the oldest frame the sinks
were done with. Prints one JSON object; ends with 1 unless, from minute 2 on (or from a tenth, where that is sooner), memory stays
within 2 %, threads and files do not grow, and no frame was older than 1 s.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from pipeline import make_runtime

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))  # for documents.py, which they share
from documents import at_least_one, run

from edgesod import Runtime, open_sink, open_source
from edgesod.errors import CheckFailed
from edgesod.processing.look import Look
from edgesod.stream import CallbackSink, LiveStatistics, run_pipeline
from edgesod.types import Frame, Result

MEMORY_GROWTH = 0.02
OLDEST_S = 1.0
SETTLED_AFTER_S = 120.0


def main() -> int:
    """Run, print, and say by the exit code whether nothing grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minutes", type=float)
    parser.add_argument("source", nargs="?", default="synthetic://?width=1280&height=720&rate=25")
    engine = parser.add_mutually_exclusive_group()
    engine.add_argument("--engine", type=Path)
    engine.add_argument("--sleep-ms", type=float, default=20.0)
    parser.add_argument("--threads", type=at_least_one)
    wanted = parser.parse_args()
    if wanted.minutes < 0.1:
        parser.error("in less than 0.1 minutes nothing settles")
    with Runtime(wanted.engine, threads=wanted.threads) if wanted.engine else make_runtime(wanted.sleep_ms) as runtime:
        runtime.warm_up()
        report = soak(runtime, wanted.source, wanted.minutes * 60)
    print(json.dumps(report, indent=1))
    return 0 if report["passed"] else 1


def soak(runtime: Runtime, uri: str, seconds: float) -> dict[str, Any]:
    """Run a source for so long; return what was noted each second, and the verdict."""
    notes: list[dict[str, float]] = []
    statistics, stop, oldest = LiveStatistics(), threading.Event(), _Oldest()

    def watch() -> None:
        begun_s = time.perf_counter()
        while not stop.wait(1.0):
            notes.append(_note(time.perf_counter() - begun_s, statistics, oldest))
            if notes[-1]["at_s"] >= seconds:
                stop.set()

    with tempfile.TemporaryDirectory() as folder:
        source = open_source(uri)
        out = Path(folder) / "out.mp4"
        sinks = [
            open_sink(out, fps=source.fps, is_live=source.is_live),
            open_sink(f"ring://soak-{os.getpid()}"),
            CallbackSink(oldest),
        ]
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        pipeline = run_pipeline(source, lambda f: runtime(f.image), Look().render, sinks, stop=stop, statistics=statistics)
        stop.set()
        watcher.join()
        written_bytes = out.stat().st_size
    if not notes or notes[-1]["at_s"] < seconds:
        raise CheckFailed(f"{source.name} ended after {pipeline.seconds:.0f} s", hint="a clip has no end as FILE?loop=-1")
    settled = [note for note in notes if note["at_s"] >= min(SETTLED_AFTER_S, seconds / 10)]
    growth = {what: max(note[what] for note in settled) - settled[0][what] for what in ("rss_mb", "threads", "files")}
    share = max(abs(note["rss_mb"] / settled[0]["rss_mb"] - 1) for note in settled)
    oldest_s = max(note["oldest_s"] for note in settled)
    return {
        "source": source.name,
        "seconds": pipeline.seconds,
        "frames": pipeline.frames,
        "dropped": pipeline.dropped,
        "late": pipeline.late,
        "reconnects": pipeline.reconnects,
        "fps": pipeline.fps,
        "written_mb": written_bytes / 1e6,
        "settled_rss_mb": settled[0]["rss_mb"],
        "rss_moved_by": share,
        "grew": growth,
        "oldest_s": oldest_s,
        "each_minute": notes[::60],
        "passed": share <= MEMORY_GROWTH and growth["threads"] <= 0 and growth["files"] <= 0 and oldest_s < OLDEST_S,
    }


class _Oldest:
    """The age of the oldest frame since it was last asked."""

    def __init__(self) -> None:
        self._age_s = 0.0

    def __call__(self, frame: Frame, _: Result | None) -> None:
        self._age_s = max(self._age_s, time.perf_counter() - frame.captured_at_s)

    def take(self) -> float:
        age_s, self._age_s = self._age_s, 0.0
        return age_s


def _note(at_s: float, statistics: LiveStatistics, oldest: _Oldest) -> dict[str, float]:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    now = statistics.snapshot()
    return {
        "at_s": round(at_s, 1),
        "rss_mb": round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 2),
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),
        "oldest_s": round(oldest.take(), 4),
        "fps": now["fps"],
        "frames": now["frames"],
    }


if __name__ == "__main__":
    run(main)
