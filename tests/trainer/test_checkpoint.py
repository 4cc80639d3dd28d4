"""Checkpoints are whole or not there: after a full disk, after a kill at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from edgesod.errors import InputError, OutputError
from edgesod.recipe import Preprocessing
from tests.helpers.training import tiny_recipe
from trainer import networks
from trainer.training.checkpoint import checkpoints
from trainer.training.log import RunLog, read_log
from trainer.training.loop import Trainer

ROOT = Path(__file__).parents[2]


def test_weights_say_what_they_are_fed(pairs: str, tmp_path: Path) -> None:
    Trainer(tiny_recipe(4), [pairs], tmp_path, workers=0).run()
    for name in ("model", "ema"):
        about = networks.weights_metadata(checkpoints(tmp_path)[-1] / f"{name}.safetensors")
        assert about == networks.WeightsMetadata("u2netp", Preprocessing(resize="halve-linear"))


def test_weights_of_others_say_nothing(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "bare.safetensors")
    torch.save({"x": torch.zeros(1)}, tmp_path / "bare.pth")
    assert networks.weights_metadata(tmp_path / "bare.safetensors") is None
    assert networks.weights_metadata(tmp_path / "bare.pth") is None


def test_weights_that_say_nonsense_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"x": torch.zeros(1)}, path, {"network": "u2netp", "preprocessing": '{"resize": "cubic"}'})
    with pytest.raises(InputError, match="resize"):
        networks.weights_metadata(path)
    path.write_bytes(b"none of this is a header")
    with pytest.raises(InputError, match="cannot be read"):
        networks.weights_metadata(path)
    with pytest.raises(InputError, match="no weights file"):
        networks.weights_metadata(tmp_path / "nowhere.safetensors")


_FILL_THE_DISK = """
import resource, sys, torch
from pathlib import Path
from tests.helpers.training import tiny_recipe
from trainer.training.log import RunLog
from trainer.training.loop import Trainer
torch.set_num_threads(1)
trainer = Trainer(tiny_recipe(16), [sys.argv[1]], Path(sys.argv[2]), workers=0)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000,) * 2)
try:
    trainer.run()
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs limits on file sizes")
def test_full_disk_keeps_the_last_checkpoint(pairs: str, tmp_path: Path) -> None:
    Trainer(tiny_recipe(8, checkpoint_every=8), [pairs], tmp_path, workers=0).run()
    kept = checkpoints(tmp_path)
    before = {path.name: path.read_bytes() for path in kept[-1].iterdir()}
    done = subprocess.run(
        [sys.executable, "-c", _FILL_THE_DISK, pairs, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.startswith("OutputError cannot write the checkpoint"), done.stderr
    assert checkpoints(tmp_path) == kept
    assert {path.name: path.read_bytes() for path in kept[-1].iterdir()} == before
    assert not list(tmp_path.glob(".checkpoint*"))
    Trainer(tiny_recipe(16), [pairs], tmp_path, workers=0).run()
    assert checkpoints(tmp_path)[-1].name == "checkpoint-000000016"


def test_checkpoint_with_a_file_missing_or_in_anothers_place_is_refused(pairs: str, tmp_path: Path) -> None:
    Trainer(tiny_recipe(4), [pairs], tmp_path, workers=0).run()
    newest = checkpoints(tmp_path)[-1]
    (newest / "optimizer.safetensors").write_bytes((newest / "ema.safetensors").read_bytes())
    with pytest.raises(InputError, match="not a checkpoint"):
        Trainer(tiny_recipe(8), [pairs], tmp_path, workers=0)
    (newest / "ema.safetensors").unlink()
    with pytest.raises(InputError, match="not a checkpoint"):
        Trainer(tiny_recipe(8), [pairs], tmp_path, workers=0)


def test_log_that_cannot_be_written_is_an_output_error(pairs: str, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where a folder should be")
    with pytest.raises(OutputError, match="run"):
        RunLog(tmp_path / "run", 0)
    with RunLog(tmp_path / "other", 0) as log:
        (tmp_path / "other" / "log.jsonl").mkdir()
        with pytest.raises(OutputError, match=r"log\.jsonl"):
            log.scores(4, 32, {"mae": 0.1})


@pytest.mark.slow
def test_killed_twenty_times_resumes_from_a_whole_checkpoint_each_time(pairs: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.killed_training", pairs, str(tmp_path / "run"), "20"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kills = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(kills) == 20
    assert sum(kill["was_writing"] for kill in kills) >= 5
    for before, after in pairwise(kills):
        assert after["resumed_at"] == before["newest"] < after["newest"]
    newest = checkpoints(tmp_path / "run")[-1]
    assert {path.name for path in newest.iterdir()} == {f"{n}.safetensors" for n in ("model", "ema", "optimizer")} | {
        "record.json"
    }


def test_sigterm_saves_and_the_command_goes_on_from_there(pairs: str, tmp_path: Path) -> None:
    recipe, run = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text(
        'network = "u2netp"\nprecision = "fp32"\nvalidate_images = 2\nlog_every = 1\n'
        "[[stages]]\nimages = 100000\nsize = 32\nbatch = 4\nlr = 1e-3\n"
    )
    command = [sys.executable, "-m", "edgesod", "train", "--data", pairs, "--out", str(run), "--recipe", str(recipe)]
    command += ["--resume", "--threads", "1"]
    seen, log = 0, run / "log.jsonl"
    for workers in ("0", "1"):
        steps = len(read_log(log)) if seen else 0
        process = subprocess.Popen(
            [*command, "--workers", workers],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        _wait_for(process, lambda: log.is_file() and len(read_log(log)) > steps)  # noqa: B023
        os.killpg(process.pid, signal.SIGTERM)  # as systemd and clusters do: the worker gets it too
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
        assert not seen or f"going on after {seen} images" in errors
        newest = checkpoints(run)[-1]
        assert out.strip() == str(newest)
        assert load_file(newest / "optimizer.safetensors")
        before, seen = seen, int(newest.name.split("-")[1])
        assert seen > before
        assert not list(run.glob(".*")), os.listdir(run)


def _wait_for(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
