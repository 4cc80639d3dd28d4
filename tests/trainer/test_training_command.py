"""What ``edgesod train`` says and refuses, called as the program calls it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgesod.cli import train
from edgesod.errors import CheckFailed, UsageError
from tests.helpers.training import TINY, TinyNet
from trainer.networks import registry
from trainer.training import overfit
from trainer.training.devices import make_fabric
from trainer.training.learner import Learner
from trainer.training.recipe import RECIPES, load_recipe, with_settings


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._CONFIGS, "tiny", TINY)


def _recipe(folder: Path, lr: float = 0.05, images: int = 8) -> str:
    path = folder / "recipe.toml"
    path.write_text(
        'network = "tiny"\nprecision = "fp32"\nvalidate_images = 2\nloss = { bce = 1.0 }\n'
        f"[[stages]]\nimages = {images}\nsize = 32\nbatch = 4\nlr = {lr}\n"
    )
    return str(path)


def test_one_batch_is_learnt_by_heart_and_nothing_written(
    pairs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train.command(data=[pairs], recipe=_recipe(tmp_path), overfit_one_batch=True)
    assert capsys.readouterr().out.startswith("passed: the prediction's loss fell from 0.")
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]


def test_overfitting_from_other_weights_is_refused(pairs: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fresh weights"):
        train.command(data=[pairs], recipe=_recipe(tmp_path), overfit_one_batch=True, start_from=tmp_path)


def test_network_that_cannot_learn_one_batch_fails_the_check(
    pairs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overfit, "MAX_STEPS", 10)
    with pytest.raises(CheckFailed, match=r"after 10 steps on one batch of 4 pictures the loss of fine is 0\.\d+") as caught:
        train.command(data=[pairs], recipe=_recipe(tmp_path, lr=1e-9), overfit_one_batch=True)
    assert "learning rate" in caught.value.hint
    assert caught.value.exit_code == 1


def test_frozen_normalisation_and_blank_maps_are_told(
    pairs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({name: torch.zeros_like(value) for name, value in TinyNet().stem.state_dict().items()}, tmp_path / "b.pth")
    run = tmp_path / "run"
    train.command(data=[pairs], recipe=_recipe(tmp_path, 1e-9), out=run, backbone=tmp_path / "b.pth", workers=0)
    said = capsys.readouterr()
    assert "batch normalisation is frozen" in said.err
    assert "100% of the hold-out's maps are blank" in said.err
    assert "Black pictures" in said.err
    assert said.out == f"{run / 'checkpoint-000000008'}\n"
    train.command(data=[pairs], recipe=_recipe(tmp_path, 1e-9, images=16), out=run, resume=True, workers=0)
    said = capsys.readouterr()
    assert "going on after 8 images" in said.err
    assert "batch normalisation is frozen" in said.err


def test_single_pictures_without_a_backbone_are_warned_of(
    pairs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train.command(data=[pairs], recipe=_recipe(tmp_path), out=tmp_path / "a", settings=["batch=1", "images=2"], workers=0)
    said = capsys.readouterr().err
    assert "learns from single pictures" in said
    assert "tiny by adamw, rate in brackets: 2 images at 32×32 (0.05)" in said
    train.command(data=[pairs], recipe=_recipe(tmp_path), out=tmp_path / "b", settings=["batch=2", "images=2"], workers=0)
    assert "learns from single pictures" not in capsys.readouterr().err


@pytest.mark.parametrize(("setting", "is_told"), [("lr=0.01", True), ("lr=1e-3", False)])
def test_a_rate_too_high_for_fresh_weights_is_warned_of(
    pairs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, is_told: bool
) -> None:
    train.command(data=[pairs], recipe=_recipe(tmp_path), out=tmp_path / "run", settings=[setting], workers=0)
    assert ("--recipe scratch --set lr=0.001" in capsys.readouterr().err) == is_told
    weights = tmp_path / "run" / "checkpoint-000000008" / "ema.safetensors"
    train.command(data=[pairs], recipe=_recipe(tmp_path), out=tmp_path / "b", settings=[setting], workers=0, start_from=weights)
    assert "--recipe scratch" not in capsys.readouterr().err


def test_going_on_with_nothing_is_said(pairs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train.command(data=[pairs], recipe=_recipe(tmp_path), out=tmp_path / "rnu", resume=True, workers=0)
    assert "there is no run in" in capsys.readouterr().err
    train.command(data=[pairs], recipe=_recipe(tmp_path), out=tmp_path / "rnu", resume=True, workers=0)
    assert "there is no run in" not in capsys.readouterr().err


def test_settings_change_a_recipe() -> None:
    recipe = with_settings(
        load_recipe("fast"),
        ["batch=2", "lr_end = 1e-3", "precision=fp16", "augmentation.flip=0", 'network="u2net"', "loss.ssim=0.5", "seed=7"],
    )
    assert [(stage.batch, stage.lr_end) for stage in recipe.stages] == [(2, 1e-3)] * 3
    assert [stage.size for stage in recipe.stages] == [128, 192, 320]
    assert (recipe.precision, recipe.network, recipe.seed) == ("fp16", "u2net", 7)
    assert recipe.augmentation == load_recipe("fast").augmentation.model_copy(update={"flip": 0.0})
    assert recipe.loss == {"bce": 1.0, "iou": 1.0, "ssim": 0.5}
    assert with_settings(load_recipe("basnet"), []) == load_recipe("basnet")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("batch", "takes KEY=VALUE"),
        ("bach=2", "the keys are network, stages"),
        ("batch=0", "batch"),
        ("optimizer=adamm", "optimizer"),
        ("augmentation.flop=1", "flop"),
        ("size.x=1", "size"),
        ("seed.x=1", "seed"),
    ],
)
def test_settings_that_do_not_fit_are_refused(setting: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        with_settings(load_recipe("fast"), [setting])


def test_a_stage_may_crop_less_than_the_others() -> None:
    recipe = load_recipe("further")
    crops = [recipe.augmentation_in(stage).min_crop for stage in recipe.stages]
    assert crops == [0.6, 0.6, 0.8]
    assert {recipe.augmentation_in(stage).brightness for stage in recipe.stages} == {0.35}
    with pytest.raises(UsageError, match="two ways to crop"):
        with_settings(load_recipe("u2net"), ["min_crop=0.9"])


@pytest.mark.parametrize(("recipe", "divisor"), [("u2net", "max"), ("basnet", "max"), ("poolnet", "1"), ("fast", "255")])
def test_pictures_are_divided_as_the_recipe_says(recipe: str, divisor: str) -> None:
    plan = load_recipe(recipe)
    assert Learner(plan, make_fabric("fp32")).about.preprocessing.divide_by == divisor
    if divisor == "max":
        changed = with_settings(plan, ["divide_by=255"])
        assert Learner(changed, make_fabric("fp32")).about.preprocessing.divide_by == "255"


def test_black_pictures_are_in_the_manual() -> None:
    assert "## Black pictures" in (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def test_run_is_not_overwritten_and_needs_a_folder(pairs: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folder"):
        train.command(data=[pairs], recipe=_recipe(tmp_path))
    train.command(data=[pairs], recipe=_recipe(tmp_path), out=tmp_path / "run", workers=0)
    with pytest.raises(UsageError, match="holds a run already") as caught:
        train.command(data=[pairs], recipe=_recipe(tmp_path), out=tmp_path / "run", workers=0)
    assert "--resume" in caught.value.hint
    with pytest.raises(UsageError, match="is a run, not one of its checkpoints") as caught:
        train.command(data=[pairs], recipe=_recipe(tmp_path), out=tmp_path / "other", start_from=tmp_path / "run")
    assert Path(caught.value.hint.removeprefix("--start-from ")) == tmp_path / "run" / "checkpoint-000000008"
    with pytest.raises(UsageError, match=r"recipe\.toml is a file"):
        train.command(data=[pairs], recipe=_recipe(tmp_path), out=tmp_path / "recipe.toml")


def test_unknown_network_is_refused(pairs: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no network 'unet'"):
        train.command(data=[pairs], recipe=_recipe(tmp_path), model="unet", out=tmp_path / "run")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda p: p.stem)
def test_shipped_recipes_fit_their_networks(path: Path) -> None:
    from trainer.losses import DeepSupervision
    from trainer.training.learner import _require_sizes
    from trainer.training.optimizer import make_optimizer

    recipe = load_recipe(path.stem)
    _require_sizes(recipe)
    outputs = registry.config(recipe.network).outputs
    loss_of = DeepSupervision(recipe.loss, recipe.output_weights, outputs)
    blank = torch.zeros(1, 1, 8, 8)
    assert torch.isfinite(loss_of([blank] * len(outputs), blank, blank).total)
    with torch.device("meta"):
        network = registry.create(recipe.network)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    optimizer = make_optimizer(recipe, network)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)
    used = {group["lr_share"] for group in optimizer.param_groups}
    assert set(recipe.lr_shares.values()) <= used


def test_there_is_a_recipe_of_each_paper() -> None:
    for name in registry.names():
        if name != "tiny":
            assert load_recipe(name).network == name
