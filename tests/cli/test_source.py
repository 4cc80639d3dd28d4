"""Weights and ONNX files are fed what they say they want, a user's recipe wins, and contradictions are named."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
from safetensors.torch import load_file, save_file

from edgesod import zoo
from edgesod.cli._source import recipe_and_onnx
from edgesod.errors import InputError, UsageError
from edgesod.export.about import About, read_about, write_about
from edgesod.recipe import Preprocessing
from tests.helpers.engines import run_tiny, write_tiny
from trainer import networks
from trainer.export import export_weights, weights_recipe

OURS, AUTHORS = Preprocessing(), Preprocessing(resize="linear")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as the trainer writes them: they say what they are."""
    path = tmp_path_factory.mktemp("weights") / "ema.safetensors"
    state = load_file(zoo.shipped("u2netp").weights)
    save_file(state, path, networks.WeightsMetadata("u2netp", OURS).to_strings())
    return path


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as the authors release them: they say nothing."""
    path = tmp_path_factory.mktemp("weights") / "theirs.safetensors"
    save_file(load_file(zoo.shipped("u2netp").weights), path)
    return path


def test_weights_trained_here_name_network_and_preprocessing(trained: Path) -> None:
    recipe = weights_recipe(trained, "int8", size=64)
    assert (recipe.model, recipe.size_hw, recipe.precision, recipe.preprocessing) == ("u2netp", (64, 64), "int8", OURS)
    assert weights_recipe(trained, "int8", model="u2netp") == weights_recipe(trained, "int8")


def test_the_authors_weights_are_fed_as_the_authors_do(silent: Path) -> None:
    assert weights_recipe(silent, "fp32", model="u2netp").preprocessing == AUTHORS
    for name in networks.names():
        recipe = weights_recipe(silent, "fp16", model=name)
        assert (recipe.preprocessing, recipe.size_hw) == (networks.config(name).preprocessing, networks.config(name).size_hw)


def test_contradictions_are_named(trained: Path, silent: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="weights of u2netp, not of basnet"):
        weights_recipe(trained, "fp32", model="basnet")
    with pytest.raises(UsageError, match="does not say which network"):
        weights_recipe(silent, "fp32")
    with pytest.raises(UsageError, match="no network 'u3net'"):
        weights_recipe(tmp_path / "absent.pth", "fp32", model="u3net")
    with pytest.raises(InputError, match="absent"):
        weights_recipe(tmp_path / "absent.pth", "fp32", model="u2net")


def test_a_variant_takes_the_weights_of_what_it_was_derived_from(trained: Path, silent: Path) -> None:
    ours = weights_recipe(trained, "int8", model="u2netp-fast")
    assert (ours.model, ours.size_hw, ours.preprocessing) == ("u2netp-fast", (320, 320), OURS)
    assert weights_recipe(silent, "fp32", model="u2netp-fast").preprocessing == AUTHORS
    assert weights_recipe(trained, "int8").model == "u2netp"
    variant = zoo.shipped("u2netp-fast").weights
    with pytest.raises(UsageError, match="weights of u2netp-fast, not of u2netp"):
        weights_recipe(variant, "fp32", model="u2netp")


def test_a_users_own_preprocessing_wins(trained: Path, silent: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    plain = 'model = "u2netp"\nsize_hw = [64, 64]\nprecision = "fp16"\n'
    for addition, expected in (("", {trained: OURS, silent: AUTHORS}), ('preprocessing = { divide_by = "max" }\n', None)):
        own.write_text(plain + addition)
        for weights in (trained, silent):
            with recipe_and_onnx(model=None, precision="int8", recipe_file=own, weights=weights) as (recipe, path):
                assert recipe.preprocessing == (expected[weights] if expected else Preprocessing(divide_by="max"))
                assert (recipe.precision, recipe.size_hw) == ("fp16", (64, 64))
                about = read_about(path)
                assert about == About("u2netp", recipe.preprocessing)


def test_an_exported_file_says_what_it_wants(silent: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    assert export_weights(weights_recipe(silent, "fp32", model="u2netp", size=64), silent, path) < 1e-5
    for model in (None, "u2netp"):
        with recipe_and_onnx(model=model, precision="int8", onnx=path) as (recipe, found):
            assert (recipe.model, recipe.size_hw, recipe.preprocessing, found) == ("u2netp", (64, 64), AUTHORS, path)
    with pytest.raises(UsageError, match=r"mine\.onnx holds u2netp, not basnet"):
        with recipe_and_onnx(model="basnet", precision="int8", onnx=path):
            pass


def test_a_silent_onnx_takes_the_named_models_recipe_or_a_plain_one(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "Tiny Net.onnx", (32, 64))
    for model, name, fed in (
        (None, "tiny-net", OURS),
        ("mine", "mine", OURS),
        ("u2netp", "u2netp", OURS),
        ("basnet", "basnet", AUTHORS),
    ):
        with recipe_and_onnx(model=model, precision="fp32", onnx=path) as (recipe, _):
            assert (recipe.model, recipe.size_hw, recipe.preprocessing) == (name, (32, 64), fed)
    with recipe_and_onnx(model=None, precision="fp32", onnx=path.rename(tmp_path / "Größe 2.onnx")) as (recipe, _):
        assert recipe.model == "gr--e-2"  # folders and commands are named after it


def test_logits_are_not_taken_for_a_map(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.onnx")
    model = onnx.load(str(path))
    sigmoid = model.graph.node[-1]
    assert sigmoid.op_type == "Sigmoid"
    for op_type, seen in (("Identity", r"-?\d"), ("Log", "nan")):
        sigmoid.op_type = op_type
        onnx.save(model, str(path))
        with pytest.raises(InputError, match=rf"tiny\.onnx returns saliency from {seen}.* a saliency map is within \[0, 1\]"):
            with recipe_and_onnx(model=None, precision="fp32", onnx=path):
                pass


def test_what_a_file_says_survives_and_the_first_output_alone_is_kept(tmp_path: Path) -> None:
    import numpy as np
    import onnxruntime

    source = write_tiny(tmp_path / "source.onnx", outputs=4)
    kept = shutil.copy(source, tmp_path / "kept.onnx")
    assert read_about(kept) is None
    about = About("tiny", Preprocessing(colour="BGR", mean=(0.1, 0.2, 0.3)))
    write_about(kept, kept, about, first_output_alone=True)
    assert read_about(kept) == about
    graph = onnx.load(str(kept)).graph
    assert [output.name for output in graph.output] == ["saliency"]
    assert [node.op_type for node in graph.node] == ["Conv", "Sigmoid"]
    image = np.random.default_rng(0).normal(0, 1, (1, 3, 32, 48)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(kept), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"image": image})[0], run_tiny(image), atol=1e-5)


@pytest.mark.parametrize("said", ["{", '{"colour": "CMYK"}'])
def test_what_cannot_be_understood_is_an_input_error(tmp_path: Path, said: str) -> None:
    path = write_tiny(tmp_path / "odd.onnx")
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {"edgesod.network": "tiny", "edgesod.preprocessing": said})
    onnx.save(model, str(path))
    with pytest.raises(InputError, match=r"odd\.onnx names a preprocessing that is not one"):
        read_about(path)
    (tmp_path / "text.onnx").write_text("no ONNX at all")
    with pytest.raises(InputError, match=r"text\.onnx cannot be read"):
        read_about(tmp_path / "text.onnx")
