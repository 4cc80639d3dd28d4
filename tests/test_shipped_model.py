"""What the package ships fits together: weights, ONNX, table, recipes, card; and torch says the same as the runtime."""

from __future__ import annotations

import csv
import re

import cv2
import numpy as np
import onnx
import pytest
import torch
from skimage import data

from edgesod import Runtime, assets, zoo
from edgesod.calibration.table import check_table, read_table
from edgesod.files import sha256_of
from edgesod.processing.preprocess import preprocess
from edgesod.recipe import load_recipe, recipe_for
from edgesod.runtime import open_session
from trainer import networks


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return np.ascontiguousarray(data.coffee()[:, :, ::-1])


@pytest.mark.parametrize("name", zoo.names())
def test_card_table_and_recipes_belong_to_the_files(name: str) -> None:
    model = zoo.shipped(name)
    for path in (model.onnx, model.weights):
        assert model.card["sha256"][path.name] == sha256_of(path)
    table = read_table(assets.tables() / f"{name}-320.json")
    check_table(table, model.onnx, recipe_for(name, "int8"))
    assert table.num_images >= 128
    assert {recipe_for(name, p).precision for p in ("fp32", "fp16", "bf16", "int8")} == {"fp32", "fp16", "bf16", "int8"}
    network = networks.create(name)
    assert model.card["parameters"] == sum(p.numel() for p in network.parameters())
    # whoever ships without --sod has the hold-out's scores alone
    assert model.card["scores"]
    assert model.card["scores"].get("SOD", {"n": 300})["n"] == 300
    graph = onnx.load(str(model.onnx))
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 17)]
    assert not {node.op_type for node in graph.graph.node} & {"Shape", "Gather", "Unsqueeze", "Slice", "Constant"}


@pytest.mark.parametrize("name", zoo.names())
def test_every_layer_has_its_fp16_verdict_and_the_card_its_pictures(name: str) -> None:
    model = zoo.shipped(name)
    folder = model.onnx.parent
    with open(folder / "fp16.csv", encoding="utf-8") as file:
        written = {row["layer"]: (float(row["largest"]), row["verdict"]) for row in csv.DictReader(file)}
    nodes = {node.name for node in onnx.load(str(model.onnx)).graph.node}
    assert written.keys() == nodes
    ranges = read_table(assets.tables() / f"{name}-320.json").ranges
    largest = max(abs(value) for by_method in ranges.values() for value in by_method["minmax"])
    assert max(value for value, _ in written.values()) == pytest.approx(largest, rel=1e-4)
    assert all((verdict == "fits") == (value <= 65504 / 8) for value, verdict in written.values())
    linked = re.findall(r"\]\(([^):]+)\)", (folder / "README.md").read_text(encoding="utf-8"))
    assert all((folder / file).is_file() for file in linked)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_torch_and_the_runtime_see_the_same(photograph: np.ndarray, backend: str) -> None:
    model, recipe = zoo.shipped("u2netp"), recipe_for("u2netp", "fp32")
    network = networks.create("u2netp").eval()
    networks.load_weights(network, model.weights)
    x = preprocess(photograph, recipe)
    with torch.no_grad():
        expected = torch.sigmoid(network(torch.from_numpy(x))[0]).numpy()
    with open_session(model.onnx, "fp32", "onnxruntime") as session:
        assert np.abs(session.run({session.inputs[0].name: x})[session.outputs[0].name] - expected).max() < 1e-5
    with Runtime("u2netp", precision="fp32", backend=backend) as runtime:
        saliency = runtime(photograph).saliency
    at_frame_size = cv2.resize(expected[0, 0], photograph.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    assert expected.max() - expected.min() > 0.5
    assert np.abs(saliency - at_frame_size).max() < 1 / 255


@pytest.mark.parametrize("path", sorted(assets.recipes().glob("*.toml")), ids=lambda p: p.stem)
def test_recipe_is_named_after_what_it_says(path: object) -> None:
    assert load_recipe(path).name == path.stem  # type: ignore[arg-type,attr-defined]
