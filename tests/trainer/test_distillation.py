"""A network that learns from a teacher besides the truth: what its loss is, and that the teacher stays as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from edgesod import zoo
from edgesod.errors import InputError, UsageError
from edgesod.files import sha256_of
from tests.helpers.training import TINY, TinyNet, tiny_recipe
from trainer.losses import DeepSupervision
from trainer.networks import registry
from trainer.training.checkpoint import checkpoints, read_record
from trainer.training.devices import make_fabric
from trainer.training.learner import Batch, Learner
from trainer.training.loop import Trainer
from trainer.training.overfit import overfit_one_batch
from trainer.training.recipe import load_recipe

LOSS = {"bce": 1.0, "distill": 0.5}


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of the tiny network, which is made known."""
    monkeypatch.setitem(registry._CONFIGS, "tiny", TINY)
    torch.manual_seed(3)
    network = TinyNet()
    network.stem[1].running_mean.uniform_(-1, 1)
    network.stem[1].running_var.uniform_(0.5, 2)
    save_file(network.state_dict(), tmp_path / "teacher.safetensors")
    return tmp_path / "teacher.safetensors"


def _batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)
    masks = 255 * torch.randint(0, 2, (4, 1, 32, 32), generator=generator, dtype=torch.uint8)
    return images, masks, ["?"] * 4


def test_the_term_and_its_gradient_are_cross_entropys_with_the_teacher() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = [(3 * torch.randn(2, 1, 8, 9, generator=generator, dtype=torch.float64)).requires_grad_() for _ in range(2)]
    truth, taught = (torch.rand(2, 1, 8, 9, generator=generator, dtype=torch.float64) for _ in range(2))
    loss = DeepSupervision({"distill": 0.5}, [1.0, 3.0])(logits, truth, taught)
    loss.total.backward()
    for k, (z, weight) in enumerate(zip(logits, (1.0, 3.0), strict=True)):
        p = 1 / (1 + torch.exp(-z.detach()))
        expected = -(taught * p.log() + (1 - taught) * (1 - p).log()).mean()
        assert float(loss.parts[f"d{k}/distill"]) == pytest.approx(float(expected), rel=1e-9)
        torch.testing.assert_close(z.grad, 0.5 * weight * (p - taught) / p.numel())
    with pytest.raises(UsageError, match="distill needs a teacher"):
        DeepSupervision({"distill": 1.0})(logits, truth)


def test_a_step_learns_from_the_teachers_prediction_and_leaves_the_teacher_alone(tiny: Path) -> None:
    recipe = tiny_recipe(network="tiny", loss=LOSS, teacher={"network": "tiny", "weights": str(tiny)}, clip_norm=None)
    learner = Learner(recipe, make_fabric("fp32"))
    assert learner.teacher is not None
    alone = Learner(tiny_recipe(network="tiny"), make_fabric("fp32"))
    assert all(torch.equal(a, b) for a, b in zip(learner.module.parameters(), alone.module.parameters(), strict=True))
    learner.start()
    batch = images, _, _ = _batch()
    # written out: batch normalisation by its running statistics, whatever the batch, and the first output's sigmoid
    state, how = load_file(tiny), TINY.preprocessing
    x = (images.double() / 255 - torch.tensor(how.mean)[:, None, None]) / torch.tensor(how.std)[:, None, None]
    x = torch.conv2d(x, state["stem.0.weight"].double(), state["stem.0.bias"].double(), padding=1)
    mean, variance, scale, shift = (
        state[f"stem.1.{name}"].double()[:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
    )
    x = ((x - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(min=0)
    logits = torch.conv2d(x, state["head.weight"].double(), state["head.bias"].double(), padding=1)[:, :1]
    taught = 1 / (1 + torch.exp(-logits))
    torch.testing.assert_close(learner.teacher(images).double(), taught, rtol=0, atol=1e-5)

    weights = [p.detach().clone() for p in learner.module.parameters()]
    first = learner.step([batch], 1e-2, 0)
    assert first.parts.keys() == {f"{output}/{term}" for output in ("fine", "coarse") for term in LOSS}
    expected = sum(
        weight * float(first.parts[f"{output}/{term}"]) for output in ("fine", "coarse") for term, weight in LOSS.items()
    )
    assert float(first.total) == pytest.approx(expected, rel=1e-5)
    assert not all(torch.equal(a, b) for a, b in zip(weights, learner.module.parameters(), strict=True))
    last = learner.step([batch] * 2, 1e-2, 4)
    assert float(last.parts["fine/distill"]) != float(first.parts["fine/distill"])
    torch.testing.assert_close(learner.teacher(images).double(), taught, rtol=0, atol=1e-5)


def test_the_record_says_who_taught(pairs: str, tmp_path: Path, tiny: Path) -> None:
    recipe = tiny_recipe(4, network="tiny", loss=LOSS, teacher={"network": "tiny", "weights": str(tiny)})
    Trainer(recipe, [pairs], tmp_path / "run", workers=0).run()
    record = read_record(checkpoints(tmp_path / "run")[-1])
    assert record["teacher"] == {"network": "tiny", "sha256": sha256_of(tiny)}
    assert record["recipe"]["teacher"] == {"network": "tiny", "weights": str(tiny)}


def test_a_run_that_goes_on_says_that_its_teacher_is_another(
    tmp_path: Path, tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = tiny_recipe(network="tiny", loss=LOSS, teacher={"network": "tiny", "weights": str(tiny)})
    fabric = make_fabric("fp32")
    Learner(recipe, fabric).save(tmp_path, 4, {})
    Learner(recipe, fabric).load(checkpoints(tmp_path)[-1])
    assert not caplog.messages
    save_file({key: -value for key, value in load_file(tiny).items()}, tiny)
    Learner(recipe, fabric).load(checkpoints(tmp_path)[-1])
    assert "was taught by other weights than the tiny that teaches from here on" in caplog.text


def test_one_batch_is_learnt_by_heart_whatever_the_teacher_says(
    pairs: str, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the loss of an output is that against the truth: a teacher's term never falls to a fifth
    monkeypatch.setattr("trainer.training.overfit.MAX_STEPS", 3)
    monkeypatch.setattr("trainer.training.overfit.BOUND", 10.0)
    recipe = tiny_recipe(network="tiny", loss=LOSS | {"distill": 1e6}, teacher={"network": "tiny", "weights": str(tiny)})
    assert overfit_one_batch(recipe, [pairs]).first < 10


def test_teacher_and_term_go_together() -> None:
    teacher = {"network": "u2netp"}
    for changes in ({"teacher": teacher}, {"loss": LOSS}):
        with pytest.raises(ValidationError, match="a teacher goes with the loss term distill"):
            tiny_recipe(**changes)  # type: ignore[arg-type]
    assert tiny_recipe(teacher=teacher, loss=LOSS).teacher is not None


def test_a_teacher_that_cannot_teach_is_refused_before_the_run(tmp_path: Path) -> None:
    shipped = zoo.shipped("u2netp").weights
    for teacher, error, words in (
        ({"network": "poolnet"}, UsageError, "stage 1 .*at least 128"),
        ({"network": "u3net"}, UsageError, "no network 'u3net'"),
        ({"network": "u2net"}, InputError, "no model 'u2net' is shipped"),
        ({"network": "u2net", "weights": shipped}, UsageError, "weights of u2netp, not of u2net"),
        ({"network": "u2netp", "weights": tmp_path / "absent.pth"}, InputError, r"absent\.pth"),
    ):
        with pytest.raises(error, match=words):
            Learner(tiny_recipe(teacher=teacher, loss=LOSS), make_fabric("fp32"))


def test_the_recipe_starts_as_its_teacher_without_the_last_stage(pairs: str, tmp_path: Path) -> None:
    shipped = zoo.shipped("u2netp").weights
    plan = load_recipe("u2netp-fast")
    assert plan.teacher is not None
    recipe = tiny_recipe(4, network=plan.network, loss=plan.loss, teacher=plan.teacher.model_dump())
    trainer = Trainer(recipe, [pairs], tmp_path, start_from=shipped, workers=0)
    ours, theirs = trainer.learner.module.state_dict(), load_file(shipped)
    fuse = theirs["outconv.weight"].double().numpy()[0, :, 0, 0]
    np.testing.assert_allclose(ours["outconv.weight"][0, :, 0, 0], [fuse[0] + fuse[1], *fuse[2:]], rtol=1e-6)
    assert all(
        torch.equal(ours[key], theirs[key].float()) for key in ours if "num_batches" not in key and key != "outconv.weight"
    )
