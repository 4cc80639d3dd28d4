"""A run learns, ends in the same weights however often it was cut, and says what is wrong."""

from __future__ import annotations

import copy
import hashlib
import json
import signal
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn import functional as F

from edgesod.errors import BackendError, CheckFailed, InputError, UsageError
from tests.helpers.pairs import write_pairs
from tests.helpers.training import TINY, TinyNet, last_weights, tiny_recipe
from trainer.losses.terms import TERMS
from trainer.networks import registry
from trainer.training.checkpoint import checkpoints
from trainer.training.devices import make_fabric, resolve_precision
from trainer.training.ema import Ema
from trainer.training.learner import Learner
from trainer.training.log import RunLog, read_log
from trainer.training.loop import Progress, Trainer
from trainer.training.recipe import Stage, TrainingRecipe, load_recipe
from trainer.training.schedule import learning_rate

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "muon", "stage": {"lr": 2e-2, "lr_end": 0.0}},
        {"optimizer": "adamw", "stage": {"batch": 2, "accumulate": 2}},
        {"optimizer": "sgd", "precision": "bf16"},
        # the first stage ends, and the run is cut, two images past the stage's length
        {
            "optimizer": "adam",
            "stages": [
                {"images": 10, "size": 32, "batch": 4, "lr": 1e-3},
                {"images": 14, "size": 64, "batch": 3, "accumulate": 2, "lr": 1e-3, "lr_end": 0.0},
            ],
        },
        {"network": "u2netp-fast", "teacher": {"network": "u2netp"}, "loss": {"bce": 1.0, "distill": 1.0}},
    ],
    ids=lambda changes: changes.get("optimizer", "teacher"),
)
def test_run_cut_in_two_ends_in_the_same_weights(pairs: str, tmp_path: Path, changes: dict[str, object]) -> None:
    recipe = tiny_recipe(24, checkpoint_every=8, **changes)
    Trainer(recipe, [pairs], tmp_path / "whole", workers=0).run()

    def stop_on_the_way(progress: Progress) -> None:
        if progress.seen == 12:
            signal.raise_signal(signal.SIGTERM)

    cut = Trainer(recipe, [pairs], tmp_path / "cut", workers=0, on_progress=stop_on_the_way)
    cut.run()
    assert (cut.seen, cut.is_interrupted) == (12, True)
    again = Trainer(recipe, [pairs], tmp_path / "cut", workers=0)
    assert again.seen == 12
    again.run()
    whole, pieced = last_weights(tmp_path / "whole"), last_weights(tmp_path / "cut")
    assert whole.keys() == pieced.keys()
    assert [name for name in whole if not torch.equal(whole[name], pieced[name])] == []


def test_workers_change_nothing(pairs: str, tmp_path: Path) -> None:
    for workers in (0, 1):
        Trainer(tiny_recipe(8), [pairs], tmp_path / str(workers), workers=workers).run()
    a, b = last_weights(tmp_path / "0"), last_weights(tmp_path / "1")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_step_has_the_loss_and_gradients_of_a_plain_loop() -> None:
    learner = Learner(tiny_recipe(loss={"bce": 1.0}, clip_norm=None), make_fabric("fp32"))
    plain = copy.deepcopy(learner.module).to(memory_format=torch.contiguous_format).double().train()
    # in float64, where rounding does not decide on which side of a ReLU a value falls
    for module in (learner.module, learner.ema.module):
        module.double()
    fed: list[torch.Tensor] = []
    learner.module.register_forward_pre_hook(lambda _, arguments: fed.append(arguments[0].double()) or fed[0])
    learner.start()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)
    masks = torch.randint(0, 2, (4, 1, 32, 32), generator=generator, dtype=torch.uint8) * 255
    found = learner.step([(images, masks, ["?"] * 4)], 1e-3, 0)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], dtype=torch.float64).reshape(2, 3, 1, 1)
    torch.testing.assert_close(fed[0], (images / images.double().amax((1, 2, 3), keepdim=True) - mean) / std, rtol=0, atol=1e-6)
    assert fed[0].is_contiguous(memory_format=torch.channels_last)
    loss = torch.stack([F.binary_cross_entropy(torch.sigmoid(y), masks.double() / 255) for y in plain(fed[0].contiguous())])
    loss.sum().backward()
    torch.testing.assert_close(found.total, loss.detach().sum(), rtol=1e-9, atol=0)
    for name, parameter in learner.module.named_parameters():
        wanted = plain.get_parameter(name).grad
        torch.testing.assert_close(parameter.grad, wanted, rtol=0, atol=1e-6 * float(wanted.abs().max()) + 1e-9)


def test_accumulated_gradient_is_that_of_the_whole_batch(pairs: str) -> None:
    gradients = []
    for stage in ({"batch": 4}, {"batch": 2, "accumulate": 2}):
        learner = Learner(tiny_recipe(clip_norm=None, stage=stage), make_fabric("fp32"))
        learner.start()
        learner.module.train = lambda _: nn.Module.train(learner.module, False)  # noqa: B023  # statistics of a batch would differ
        images = torch.randint(0, 256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        masks = images[:, :1]
        n = stage["batch"]
        learner.step([(images[k : k + n], masks[k : k + n], ["?"] * n) for k in range(0, 4, n)], 1e-3, 0)
        gradients.append([p.grad for p in learner.module.parameters()])
    for whole, summed in zip(*gradients, strict=True):
        torch.testing.assert_close(summed, whole, rtol=1e-4, atol=1e-6)


def test_a_longer_gradient_is_scaled_down_to_the_norm() -> None:
    images = torch.randint(0, 256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    gradients = []
    for clip_norm in (None, 0.1):
        learner = Learner(tiny_recipe(clip_norm=clip_norm), make_fabric("fp32"))
        learner.start()
        learner.step([(images, images[:, :1], ["?"] * 4)], 1e-3, 0)
        gradients.append(torch.cat([p.grad.flatten() for p in learner.module.parameters()]))
    whole, clipped = gradients
    assert whole.norm() > 1
    torch.testing.assert_close(clipped, whole * (0.1 / whole.norm()), rtol=1e-4, atol=1e-7)


def test_the_average_moves_by_its_decay_statistics_included() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    generator = torch.Generator().manual_seed(0)
    ema = Ema(network, 0.5)
    expected = {name: value.double() for name, value in network.state_dict().items()}
    for step in range(12):
        decay = (1 + step) / (10 + step) if step < 8 else 0.5
        for name, value in network.state_dict().items():
            value.copy_(torch.randn(value.shape, generator=generator) if value.is_floating_point() else value + 1)
            expected[name] = decay * expected[name] + (1 - decay) * value
        ema.update(network, step)
    averages = ema.module.state_dict()
    assert averages.pop("1.num_batches_tracked") == network[1].num_batches_tracked == 12
    for name, value in averages.items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert not any(part.training for part in ema.module.modules())
    assert not any(parameter.requires_grad for parameter in ema.module.parameters())


def test_loss_falls_and_every_part_is_logged_and_drawn(pairs: str, tmp_path: Path) -> None:
    Trainer(tiny_recipe(160, log_every=1, validate_every=80, stage={"lr": 4e-3}), [pairs], tmp_path, workers=0).run()
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    steps, scores = [entry for entry in log if "loss" in entry], [entry for entry in log if "mae" in entry]
    losses = [entry["loss"] for entry in steps]
    assert sum(losses[-10:]) < 0.85 * sum(losses[:10])
    assert [entry["seen"] for entry in scores] == [80, 160]
    drawn = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    parts = {f"d{k}/{term}" for k in range(7) for term in ("bce", "iou")}
    assert parts <= steps[0].keys()
    expected = {f"loss/{part}" for part in parts} | {"loss/total", "lr", "images_per_s", "hold-out/max_f", "hold-out/mae"}
    assert expected <= set(drawn.Tags()["scalars"])
    assert [event.step for event in drawn.Scalars("loss/total")] == [entry["seen"] for entry in steps]
    for name, entries in (("d6/iou", steps), ("mae", scores)):
        values = [event.value for event in drawn.Scalars(f"loss/{name}" if entries is steps else f"hold-out/{name}")]
        assert values == pytest.approx([entry[name] for entry in entries], abs=1e-5)


def test_what_a_killed_run_logged_after_its_checkpoint_is_logged_once(pairs: str, tmp_path: Path) -> None:
    Trainer(tiny_recipe(16, log_every=1), [pairs], tmp_path, workers=0).run()
    with open(tmp_path / "log.jsonl", "a", encoding="utf-8") as log:
        log.write('{"seen": 20, "loss": 3.0}\n{"seen": 2')
    Trainer(tiny_recipe(24, log_every=1), [pairs], tmp_path, workers=0).run()
    seen = [json.loads(line)["seen"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert seen == [4, 8, 12, 16, 16, 20, 24, 24]  # twice where a validation ended a run


def test_curves_of_a_run_killed_before_its_first_checkpoint_are_drawn_once(tmp_path: Path) -> None:
    curves = tmp_path / "tensorboard"
    for k, mae in enumerate((0.5, 0.25)):
        with RunLog(tmp_path, 0) as log:
            log.scores(4, 32, {"mae": mae})
        (newest,) = (file for file in curves.iterdir() if not file.name.endswith("of-test"))
        newest.rename(curves / f"events.out.tfevents.{k}.of-test")  # files of one second have no order of their own
    assert [event.value for event in EventAccumulator(str(curves)).Reload().Scalars("hold-out/mae")] == [0.25]


def test_a_run_that_goes_on_says_what_its_recipe_changes(pairs: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Trainer(tiny_recipe(4), [pairs], tmp_path, workers=0).run()
    Trainer(tiny_recipe(4), [pairs], tmp_path, workers=0)
    assert "another recipe" not in caplog.text
    Trainer(tiny_recipe(8, seed=1), [pairs], tmp_path, workers=0)
    assert caplog.messages[-1].endswith("was trained by another recipe; from here on this one's counts: stages, seed")


def test_a_run_that_goes_on_says_that_set_or_processes_are_others(
    pairs: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, other = tmp_path / "run", write_pairs(tmp_path / "other", 23)
    Trainer(tiny_recipe(4), [pairs], run, workers=0).run()
    record_file = checkpoints(run)[-1] / "record.json"
    record = json.loads(record_file.read_text())
    stems = "\n".join(sorted(path.stem for path in (Path(pairs) / "images").iterdir()))
    assert record["data"] == {"pairs": 40, "sha256": hashlib.sha256(stems.encode()).hexdigest()}
    assert record["processes"] == 1
    Trainer(tiny_recipe(4), [str(other)], run, workers=0)
    assert "was trained on other pictures (40 pairs, here are 23)" in caplog.messages[-1]
    record_file.write_text(json.dumps(record | {"processes": 2}))
    Trainer(tiny_recipe(4), [pairs], run, workers=0)
    assert caplog.messages[-1].endswith("was trained by 2 processes: with 1 pictures come in another order")
    caplog.clear()
    record_file.write_text(json.dumps({key: value for key, value in record.items() if key not in ("data", "processes")}))
    Trainer(tiny_recipe(4), [pairs], run, workers=0)
    assert caplog.messages == [], "what a checkpoint does not say is not held against it"


def test_a_checkpoint_is_written_after_the_validation_that_falls_on_it(pairs: str, tmp_path: Path) -> None:
    there: list[list[Path]] = []

    def look(progress: Progress) -> None:
        if progress.scores is not None:
            there.append(checkpoints(tmp_path))

    Trainer(tiny_recipe(8, checkpoint_every=8), [pairs], tmp_path, workers=0, on_progress=look).run()
    assert there == [[]]


def test_processes_stop_together(pairs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process asked to stop tells the others, and stops, like them, by the sum alone."""
    trainer = Trainer(tiny_recipe(8), [pairs], tmp_path, workers=0)
    monkeypatch.setattr(trainer.fabric, "all_reduce", lambda wants, reduce_op: wants + 1)  # another process was asked to
    trainer.run()
    assert (trainer.seen, trainer.is_interrupted) == (4, True)
    alone = Trainer(tiny_recipe(8), [pairs], tmp_path / "alone", workers=0)
    alone._stop(signal.SIGTERM, None)
    assert not alone.is_interrupted
    alone.run()
    assert (alone.seen, alone.is_interrupted) == (4, True)


def test_loss_that_is_not_finite_names_the_batch(pairs: str, tmp_path: Path) -> None:
    trainer = Trainer(tiny_recipe(), [pairs], tmp_path, workers=0)
    with torch.no_grad():
        next(trainer.learner.module.parameters()).fill_(float("nan"))
    with pytest.raises(CheckFailed, match=r"loss is nan after 0 images, in the batch \d{3}, "):
        trainer.run()


@pytest.mark.parametrize("clip_norm", [None, 5.0])
def test_gradient_that_is_not_finite_leaves_the_weights_alone(
    pairs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip_norm: float | None
) -> None:
    """A finite loss may have one: the root of zero. Noticed a step later, it would be in the weights, and perhaps saved."""
    monkeypatch.setitem(TERMS, "bce", lambda logits, truth: (logits - logits).abs().mean().sqrt())
    trainer = Trainer(tiny_recipe(clip_norm=clip_norm), [pairs], tmp_path, workers=0)
    before = copy.deepcopy(trainer.learner.module.state_dict())
    with pytest.raises(CheckFailed, match=r"gradient's norm is nan after 0 images, in the batch \d{3}, "):
        trainer.run()
    after = trainer.learner.module.state_dict()
    names = [name for name, _ in trainer.learner.module.named_parameters()]
    assert all(torch.equal(before[name], after[name]) for name in names)
    assert checkpoints(tmp_path) == []


@pytest.mark.parametrize(("scale", "stops"), [(65536.0, False), (0.5, True)])
def test_fp16_may_overflow_while_its_loss_scale_is_found(
    pairs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: float, stops: bool
) -> None:
    monkeypatch.setitem(TERMS, "bce", lambda logits, truth: (logits - logits).abs().mean().sqrt())
    trainer = Trainer(tiny_recipe(4), [pairs], tmp_path, workers=0)
    monkeypatch.setattr(trainer.fabric.strategy.precision, "state_dict", lambda: {"scale": scale})
    monkeypatch.setattr(trainer.learner.stepper, "step", lambda: None)  # a scaler's, which leaves it out
    monkeypatch.setattr(trainer, "_save", lambda: None)
    if stops:
        with pytest.raises(CheckFailed, match="gradient's norm is nan"):
            trainer.run()
    else:
        trainer.run()
        assert trainer.seen == 4


@pytest.mark.parametrize(("value", "blank"), [(-9.0, 1.0), (9.0, 1.0), (None, 0.0)])
def test_hold_out_maps_of_one_shade_are_counted(pairs: str, tmp_path: Path, value: float | None, blank: float) -> None:
    told: list[Progress] = []
    trainer = Trainer(tiny_recipe(4), [pairs], tmp_path, workers=0, on_progress=told.append)
    average = trainer.learner.ema.module
    ramp = torch.linspace(-1, 1, 32).expand(1, 1, 32, 32)
    average.forward = lambda x: [torch.full_like(x[:, :1], value) if value is not None else ramp]  # type: ignore[method-assign]
    trainer.run()
    assert told[-1].scores is not None
    assert told[-1].scores["blank"] == blank


@pytest.mark.parametrize("other", [{"network": "u2net"}, {"optimizer": "muon"}, {"lr_shares": {"stage1.*": 10.0}}])
def test_checkpoint_of_another_network_or_optimiser_is_refused(pairs: str, tmp_path: Path, other: dict[str, object]) -> None:
    Trainer(tiny_recipe(4), [pairs], tmp_path, workers=0).run()
    with pytest.raises(InputError, match=next(iter(other))) as caught:
        Trainer(tiny_recipe(4, **other), [pairs], tmp_path, workers=0)
    assert "--start-from" in caught.value.hint


def test_run_starts_from_weights_or_a_checkpoint_of_another(pairs: str, tmp_path: Path) -> None:
    Trainer(tiny_recipe(8), [pairs], tmp_path / "first", workers=0).run()
    first = checkpoints(tmp_path / "first")[-1]
    of_weights = Trainer(tiny_recipe(8, optimizer="muon"), [pairs], tmp_path / "a", start_from=first / "ema.safetensors")
    of_all = Trainer(tiny_recipe(8), [pairs], tmp_path / "b", start_from=first)
    assert of_weights.seen == of_all.seen == 0
    expected = last_weights(tmp_path / "first")
    for name, value in of_weights.learner.module.state_dict().items():
        assert torch.equal(value, expected[f"ema/{name}"])
    for name, value in of_all.learner.module.state_dict().items():
        assert torch.equal(value, expected[f"model/{name}"])
    assert len(of_weights.learner.optimizer.state) == 0 < len(of_all.learner.optimizer.state)


def test_frozen_normalisation_survives_a_resume(pairs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._CONFIGS, "tiny", TINY)
    given = {name: torch.rand_like(value) for name, value in TinyNet().stem.state_dict().items() if value.is_floating_point()}
    torch.save(given, tmp_path / "backbone.pth")
    for seen, backbone in ((0, tmp_path / "backbone.pth"), (8, None)):
        trainer = Trainer(tiny_recipe(seen + 8, network="tiny"), [pairs], tmp_path / "run", backbone=backbone, workers=0)
        assert trainer.seen == seen
        assert trainer.learner.has_frozen_norm
        trainer.run()
        state = trainer.learner.module.stem.state_dict()
        assert all(torch.equal(state[name], given[name]) for name in given if name.startswith("1."))
        assert not torch.equal(state["0.weight"], given["0.weight"])


def test_size_the_network_cannot_take_is_refused_before_the_run(pairs: str, tmp_path: Path) -> None:
    stages = [{"images": 8, "size": size, "batch": 4, "lr": 1e-3} for size in (32, 50)]
    with pytest.raises(UsageError, match=r"stage 2 .*multiples of 32, got 50×50"):
        Trainer(tiny_recipe(stages=stages), [pairs], tmp_path, workers=0)


def test_hold_out_is_scored_at_the_size_that_windows_are_cut_from(pairs: str, tmp_path: Path) -> None:
    Trainer(tiny_recipe(4, augmentation={"rescale": 64}), [pairs], tmp_path, workers=0).run()
    assert [entry["validation_size"] for entry in read_log(tmp_path / "log.jsonl") if "mae" in entry] == [64]
    with pytest.raises(UsageError, match=r"rescale .*multiples of 32, got 50×50"):
        Trainer(tiny_recipe(4, augmentation={"rescale": 50}), [pairs], tmp_path / "other", workers=0)


def test_precision_is_chosen_by_what_the_hardware_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for flags, expected in (({"avx512_bf16": True}, "bf16"), ({"avx512_f": True, "avx512_bf16": False}, "fp32"), ({}, "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flags=flags: flags)
        assert resolve_precision("auto") == expected
    assert resolve_precision("bf16") == "bf16"
    with pytest.raises(BackendError, match="GPU"):
        make_fabric("fp16")


def test_learning_rate_warms_up_and_follows_the_cosine() -> None:
    stages = (Stage(images=100, size=32, batch=10, lr=1.0), Stage(images=100, size=32, batch=10, lr=1.0, lr_end=0.0))
    recipe = TrainingRecipe(network="u2netp", stages=stages, warmup_images=40)
    assert [learning_rate(recipe, seen) for seen in (0, 20, 40, 90)] == pytest.approx([0.2, 0.6, 1.0, 1.0])
    assert [learning_rate(recipe, seen) for seen in (100, 150, 200)] == pytest.approx([1.0, 0.5, 0.0])


def test_broken_recipe_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('network = "u2netp"\nlearning = 1\nstages = [{images = 8, size = 32, batch = 4, lr = 0.1}]\n')
    with pytest.raises(InputError, match="learning"):
        load_recipe(str(path))
