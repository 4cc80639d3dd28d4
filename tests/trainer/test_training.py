"""A run learns, survives being cut or killed, and says what is wrong."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from edgesod.errors import CheckFailed, InputError, OutputError
from tests.helpers.pairs import write_pairs
from trainer.training import loop
from trainer.training.checkpoint import checkpoints
from trainer.training.loop import Trainer
from trainer.training.recipe import Stage, TrainingRecipe, load_recipe
from trainer.training.schedule import learning_rate

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_pairs(tmp_path_factory.mktemp("pairs"), 40))


def _recipe(images: int = 48, **changes: object) -> TrainingRecipe:
    values: dict[str, object] = {
        "network": "u2netp",
        "stages": [{"images": images, "size": 32, "batch": 4, "lr": 1e-3}],
        "precision": "fp32",
        "validate_every": 10_000,
        "validate_images": 2,
        "checkpoint_every": 16,
        "loss": {"bce": 1.0, "iou": 1.0},
        "clip_norm": 5.0,
    }
    return TrainingRecipe.model_validate(values | changes)


def _weights(run: Path) -> dict[str, torch.Tensor]:
    newest = checkpoints(run)[-1]
    return {f"{name}/{key}": v for name in ("model", "ema") for key, v in load_file(newest / f"{name}.safetensors").items()}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_run_cut_in_two_ends_in_the_same_weights(data: str, tmp_path: Path, precision: str) -> None:
    recipe = _recipe(precision=precision)
    Trainer(recipe, [data], tmp_path / "whole", workers=0).run()
    cut = Trainer(recipe, [data], tmp_path / "cut", workers=0, on_progress=lambda _: None)
    save = cut._save

    def stop_half_way() -> None:
        save()
        cut.is_interrupted = True

    cut._save = stop_half_way  # type: ignore[method-assign]
    cut.run()
    assert 0 < cut.seen < recipe.images
    again = Trainer(recipe, [data], tmp_path / "cut", workers=0)
    assert again.seen == cut.seen
    again.run()
    whole, pieced = _weights(tmp_path / "whole"), _weights(tmp_path / "cut")
    assert whole.keys() == pieced.keys()
    assert all(torch.equal(whole[name], pieced[name]) for name in whole)


def test_workers_change_nothing(data: str, tmp_path: Path) -> None:
    for workers in (0, 1):
        Trainer(_recipe(16), [data], tmp_path / str(workers), workers=workers).run()
    a, b = _weights(tmp_path / "0"), _weights(tmp_path / "1")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_loss_falls_and_every_part_is_logged(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_LOG_EVERY", 1)
    Trainer(_recipe(400, validate_every=400), [data], tmp_path, workers=0).run()
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    assert {f"d{k}/{term}" for k in range(7) for term in ("bce", "iou")} <= log[0].keys()
    assert 0 <= next(entry["mae"] for entry in log if "mae" in entry) <= 1


def test_loss_that_is_not_finite_names_the_batch(data: str, tmp_path: Path) -> None:
    trainer = Trainer(_recipe(), [data], tmp_path, workers=0)
    with torch.no_grad():
        next(trainer.module.parameters()).fill_(float("nan"))
    with pytest.raises(CheckFailed, match=r"loss is nan after 0 images, in the batch \d{3}, "):
        trainer.run()


def test_full_disk_keeps_the_last_checkpoint(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Trainer(_recipe(16), [data], tmp_path, workers=0).run()
    before = checkpoints(tmp_path)[-1]
    kept = (before / "model.safetensors").read_bytes()

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.training.checkpoint.save_file", no_space)
    with pytest.raises(OutputError, match="No space left"):
        Trainer(_recipe(48), [data], tmp_path, workers=0).run()
    assert checkpoints(tmp_path) == [before]
    assert (before / "model.safetensors").read_bytes() == kept


def test_checkpoint_of_another_network_is_refused(data: str, tmp_path: Path) -> None:
    Trainer(_recipe(16), [data], tmp_path, workers=0).run()
    with pytest.raises(InputError):
        Trainer(_recipe(16, network="u2net"), [data], tmp_path, workers=0)


@pytest.mark.slow
def test_killed_at_random_resumes_from_a_whole_checkpoint(data: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'network = "u2netp"\nprecision = "fp32"\ncheckpoint_every = 4\nvalidate_every = 100000\nvalidate_images = 2\n'
        "[[stages]]\nimages = 100000\nsize = 32\nbatch = 4\nlr = 1e-3\n"
    )
    run = tmp_path / "run"
    command = [sys.executable, "-m", "edgesod", "train", "--data", data, "--out", str(run), "--recipe", str(recipe)]
    command += ["--resume", "--workers", "0", "--threads", "1"]
    rng = random.Random(0)
    seen = 0
    for _ in range(3):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while _newest(run) <= seen and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 1))
        process.send_signal(signal.SIGKILL)
        errors = process.communicate()[1]
        assert process.returncode == -signal.SIGKILL, errors
        seen = _newest(run)
        assert seen > 0
        assert load_file(checkpoints(run)[-1] / "optimizer.safetensors")
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while _newest(run) <= seen and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130, errors
    assert f"going on after {seen} images" in errors
    assert not list(run.glob(".*")), os.listdir(run)


def _newest(run: Path) -> int:
    whole = checkpoints(run) if run.is_dir() else []
    return int(whole[-1].name.split("-")[1]) if whole else 0


def test_learning_rate_warms_up_and_follows_the_cosine() -> None:
    stages = (Stage(images=100, size=32, batch=10, lr=1.0), Stage(images=100, size=32, batch=10, lr=1.0, lr_end=0.0))
    recipe = TrainingRecipe(network="u2netp", stages=stages, warmup_images=40)
    assert [learning_rate(recipe, seen) for seen in (0, 20, 40, 90)] == pytest.approx([0.2, 0.6, 1.0, 1.0])
    assert [learning_rate(recipe, seen) for seen in (100, 150, 200)] == pytest.approx([1.0, 0.5, 0.0])


@pytest.mark.parametrize("path", sorted((ROOT / "trainer" / "recipes").glob("*.toml")), ids=lambda p: p.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    assert load_recipe(path.stem).images > 0


def test_broken_recipe_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('network = "u2netp"\nlearning = 1\nstages = [{images = 8, size = 32, batch = 4, lr = 0.1}]\n')
    with pytest.raises(InputError, match="learning"):
        load_recipe(str(path))
