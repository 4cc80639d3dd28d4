"""Kill a training run again and again: ``python -m tests.helpers.killed_training DATA RUN TIMES``.

torch is imported once and every run is a fork of this process, which starts twenty of them in the time of two. Prints a line
of JSON for each: ``resumed_at``, the images seen where it took up the run; ``was_writing``, whether a checkpoint was being
written when the kill came; and ``newest``, the newest checkpoint left behind. The first kill comes while the first checkpoint
is written, the others after another one is there: at random, or again in the middle of writing.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open

from tests.helpers.training import tiny_recipe
from trainer.training.checkpoint import checkpoints
from trainer.training.loop import Trainer


def main(data: str, run: Path, times: int) -> None:
    """Start and kill; fail where a run does not start or a checkpoint left behind is not whole."""
    torch.set_num_threads(1)
    rng = random.Random(0)
    for k in range(times):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            _train(data, run, writer)
        os.close(writer)
        with os.fdopen(reader) as started:
            resumed_at = int(started.readline())
        if k:
            _wait_until(lambda: _newest(run) > resumed_at)  # noqa: B023
        if k % 2:
            time.sleep(rng.uniform(0, 1))
        else:
            _wait_until(lambda: bool(_half_written(run)))
            time.sleep(rng.uniform(0, 0.006))  # writing takes some tens of milliseconds: stay within it
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "the run ended by itself"
        kill = {"resumed_at": resumed_at, "was_writing": bool(_half_written(run)), "newest": _read_newest(run)}
        print(json.dumps(kill), flush=True)


def _train(data: str, run: Path, writer: int) -> None:
    trainer = Trainer(tiny_recipe(1_000_000, checkpoint_every=4), [data], run, workers=0)
    os.write(writer, f"{trainer.seen}\n".encode())
    trainer.run()
    os._exit(1)


def _newest(run: Path) -> int:
    """Return the images seen of the newest checkpoint, 0 where there is none."""
    whole = checkpoints(run)
    return int(whole[-1].name.split("-")[1]) if whole else 0


def _read_newest(run: Path) -> int:
    """Return the images seen of the newest checkpoint, after every tensor of it was read."""
    if not (whole := checkpoints(run)):
        return 0
    for path in whole[-1].glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # not a mapping
                file.get_tensor(name)
    seen: int = json.loads((whole[-1] / "record.json").read_text())["images_seen"]
    return seen


def _half_written(run: Path) -> list[Path]:
    return list(run.glob(".checkpoint-*.tmp"))


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
