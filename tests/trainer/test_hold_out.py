"""The hold-out is scored while a run goes on: what a signal breaks off is made up for, and the best weights are kept."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.training import tiny_recipe
from trainer import networks
from trainer.training import checkpoint, loop
from trainer.training.checkpoint import checkpoints, keep_best
from trainer.training.log import read_log
from trainer.training.loop import Progress, Trainer


def _validations(run: Path) -> list[int]:
    return [entry["seen"] for entry in read_log(run / "log.jsonl") if "max_f" in entry]


def test_a_signal_ends_a_validation_and_the_next_start_makes_up_for_it(
    pairs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(8, validate_every=4, checkpoint_every=4, log_every=1)
    trainer = Trainer(recipe, [pairs], tmp_path, workers=0)
    read, scored = trainer.source.read, []

    def signalled(stem: str) -> object:
        if stem in trainer.held:
            scored.append(stem)
            signal.raise_signal(signal.SIGTERM)
        return read(stem)

    monkeypatch.setattr(trainer.source, "read", signalled)
    trainer.run()
    assert (trainer.seen, trainer.is_interrupted, len(scored)) == (4, True, 1)
    assert len(trainer.held) == 2
    assert _validations(tmp_path) == []
    assert [folder.name for folder in checkpoints(tmp_path)] == ["checkpoint-000000004"]

    told: list[Progress] = []
    Trainer(recipe, [pairs], tmp_path, workers=0, on_progress=told.append).run()
    assert _validations(tmp_path) == [4, 8]
    assert [(progress.seen, progress.scores is not None) for progress in told] == [(4, True), (8, False), (8, True)]


def test_best_is_the_lowest_mae_of_the_last_size(pairs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maes = iter((0.2, 0.3, 0.1, 0.4))
    real = loop.validate
    monkeypatch.setattr(loop, "validate", lambda *words: real(*words) | {"mae": next(maes)})
    stages = [{"images": 12, "size": 32, "batch": 4, "lr": 1e-3}, {"images": 4, "size": 64, "batch": 4, "lr": 1e-3}]
    found = []

    def look(progress: Progress) -> None:
        if progress.scores is not None:
            record = json.loads((tmp_path / "best" / "record.json").read_text())
            found.append((record["images_seen"], record["size"], record["scores"]["mae"]))

    trainer = Trainer(tiny_recipe(stages=stages, validate_every=4), [pairs], tmp_path, workers=0, on_progress=look)
    trainer.run()
    assert found == [(4, 32, 0.2), (4, 32, 0.2), (12, 32, 0.1), (16, 64, 0.4)]
    best = load_file(tmp_path / "best" / "ema.safetensors")
    for name, value in load_file(checkpoints(tmp_path)[-1] / "ema.safetensors").items():
        assert torch.equal(best[name], value), name
    assert networks.weights_metadata(tmp_path / "best" / "ema.safetensors") == trainer.learner.about
    assert len(checkpoints(tmp_path)) == 1, "it is no checkpoint"


def test_a_disk_that_fills_up_leaves_the_best(pairs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(tiny_recipe(4), [pairs], tmp_path, workers=0)
    ema, about = trainer.learner.ema.module, trainer.learner.about
    keep_best(tmp_path, ema, {"images_seen": 4, "size": 32, "scores": {"mae": 0.2}}, about)
    before = {path.name: path.read_bytes() for path in (tmp_path / "best").iterdir()}

    def full(*_: object) -> None:
        raise checkpoint.SafetensorError("No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(checkpoint.OutputError, match="No space left"):
        keep_best(tmp_path, ema, {"images_seen": 8, "size": 32, "scores": {"mae": 0.1}}, about)
    assert {path.name: path.read_bytes() for path in (tmp_path / "best").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
