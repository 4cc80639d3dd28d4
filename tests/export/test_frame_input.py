"""A network that takes frames computes what the CPU's preprocessing and the network compute, to a stated tolerance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgesod import assets, zoo
from edgesod.calibration.fp16 import write_fp16
from edgesod.calibration.qdq import write_half_qdq, write_qdq
from edgesod.calibration.table import read_table
from edgesod.errors import InputError, UsageError
from edgesod.export.frame_input import tolerance_levels, write_frame_input
from edgesod.processing.pictures import photograph
from edgesod.processing.preprocess import preprocess
from edgesod.processing.resize import resize_image
from edgesod.recipe import Preprocessing, Recipe, recipe_for
from tests.helpers.engines import RECIPE, SIZE_HW, write_tiny

HEIGHT, WIDTH = SIZE_HW


def _recipe(frame_hw: tuple[int, int] | None, **preprocessing: object) -> Recipe:
    return RECIPE.model_copy(update={"frame_hw": frame_hw, "preprocessing": Preprocessing(**preprocessing)})


def _frame(size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """A photograph with noise on it: edges, flat parts, and every grey level."""
    noise = np.random.default_rng(0).integers(-40, 41, (*size_hw, 3))
    return np.clip(resize_image(photograph(), size_hw, "linear") + noise, 0, 255).astype(np.uint8)


def _tensor(recipe: Recipe, frame: NDArray[np.uint8], folder: Path) -> NDArray[np.float32]:
    """Return what the new nodes make of a frame, before the network."""
    write_frame_input(write_tiny(folder / "tiny.onnx"), folder / "frame.onnx", recipe)
    model = onnx.load(str(folder / "frame.onnx"))
    model.graph.output.append(helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, *SIZE_HW)))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    tensor: NDArray[np.float32] = session.run(["image"], {"frame": frame[None]})[0]
    return tensor


def _levels(tensor: NDArray[np.float32], how: Preprocessing) -> NDArray[np.float64]:
    """Take the normalisation back: grey levels, in the tensor's channel order."""
    mean, std = (np.array(values).reshape(1, 3, 1, 1) for values in (how.mean, how.std))
    return (tensor.astype(np.float64) * std + mean) * float(how.divide_by)


def _unrounded(frame: NDArray[np.uint8], recipe: Recipe) -> NDArray[np.float64]:
    """Resize in float64 by the definition: means of 2×2, then bilinear between pixel centres, edges repeated."""
    image = frame.astype(np.float64)
    while recipe.preprocessing.resize == "halve-linear" and image.shape[0] >= 2 * HEIGHT and image.shape[1] >= 2 * WIDTH:
        image = (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4
    for axis, size in ((0, HEIGHT), (1, WIDTH)):
        at = np.clip((np.arange(size) + 0.5) * image.shape[axis] / size - 0.5, 0, image.shape[axis] - 1)
        low = np.minimum(at.astype(int), max(image.shape[axis] - 2, 0))
        high = np.minimum(low + 1, image.shape[axis] - 1)
        part = (at - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        image = image.take(low, axis) * (1 - part) + image.take(high, axis) * part
    return image.transpose(2, 0, 1)[None]


@pytest.mark.parametrize(
    ("frame_hw", "how", "levels"),
    [
        ((HEIGHT, WIDTH), {}, 0.0),
        ((HEIGHT * 4, WIDTH * 4), {}, 1.0),  # two halvings and nothing more
        ((72, 128), {}, 1.25),  # as 720p to 320²: one halving, then linear
        ((152, 200), {"colour": "BGR", "mean": (0.5, 0.5, 0.5), "std": (1.0, 1.0, 1.0)}, 1.75),
        ((150, 201), {"resize": "linear"}, 0.75),  # as the authors' weights: aliasing is theirs to have
        ((20, 30), {"divide_by": "1", "mean": (0.0, 1.0, 2.0)}, 0.75),  # upwards
        ((33, 200), {}, 0.75),  # one axis is not to be halved, so neither is
    ],
)
def test_the_tensor_is_the_cpus_within_the_stated_grey_levels(
    frame_hw: tuple[int, int], how: dict[str, object], levels: float, tmp_path: Path
) -> None:
    recipe, frame = _recipe(frame_hw, **how), _frame(frame_hw)
    assert tolerance_levels(recipe) == levels
    tensor = _tensor(recipe, frame, tmp_path)
    expected = _levels(preprocess(frame, recipe), recipe.preprocessing)
    found = _levels(tensor, recipe.preprocessing)
    assert np.abs(found - expected).max() <= levels + 1e-3
    exact = _unrounded(frame, recipe)
    if recipe.preprocessing.colour == "RGB":
        exact = exact[:, ::-1]
    np.testing.assert_allclose(found, exact, atol=1e-2)  # float32, and twenty times nearer than any rounding to 8 bits


@pytest.mark.parametrize(
    ("frame_hw", "how", "message"),
    [
        (None, {}, "names no size of frames"),
        ((72, 128), {"divide_by": "max"}, "largest value"),
        ((72, 129), {}, r"129×72 cannot be halved 1 times"),
        ((4 * HEIGHT, 4 * WIDTH + 2), {}, r"194×128 cannot be halved 2 times"),
    ],
)
def test_what_cannot_be_done_in_a_network_is_refused(
    frame_hw: tuple[int, int] | None, how: dict[str, object], message: str, tmp_path: Path
) -> None:
    target = tmp_path / "frame.onnx"
    with pytest.raises(UsageError, match=message):
        write_frame_input(write_tiny(tmp_path / "tiny.onnx"), target, _recipe(frame_hw, **how))
    assert not target.exists()


def test_networks_of_another_size_and_files_that_are_none_are_refused(tmp_path: Path) -> None:
    recipe, target = _recipe((72, 128)), tmp_path / "frame.onnx"
    other = write_tiny(tmp_path / "tiny.onnx", (64, 64))
    twice = tmp_path / "twice.onnx"
    write_frame_input(write_tiny(tmp_path / "right.onnx"), twice, recipe)
    (tmp_path / "text.onnx").write_text("no network")
    for source in (other, twice, tmp_path / "text.onnx", tmp_path / "missing.onnx"):
        with pytest.raises(InputError):
            write_frame_input(source, target, recipe)
    assert not target.exists()


@pytest.mark.parametrize(
    ("kind", "bound"), [("fp32", 0.001), ("fp16", 0.001), ("int8 for CPUs", 0.01), ("half with int8", 0.01)]
)
def test_maps_of_the_shipped_network_stay_what_they_are(kind: str, bound: float, tmp_path: Path) -> None:
    """Precision is the file's: ranges, scales and casts are those of the network without the new nodes.

    INT8 answers a difference of a rounding in its input by whole steps, each set of weights by others.
    """
    recipe = recipe_for("u2netp", "fp32").model_copy(update={"frame_hw": (720, 1280)})
    source, table = zoo.shipped("u2netp").onnx, read_table(assets.tables() / "u2netp-320.json")
    typed, framed = tmp_path / "typed.onnx", tmp_path / "framed.onnx"
    if kind == "fp32":
        typed = source
    elif kind == "fp16":
        write_fp16(source, typed)
    elif kind == "int8 for CPUs":
        write_qdq(source, typed, table, "percentile-99.999", scheme="cpu")
    else:
        write_half_qdq(source, typed, table, "percentile-99.999")
    write_frame_input(typed, framed, recipe)
    frame = resize_image(photograph(), (720, 1280), "linear")
    found = _run(framed, {"frame": frame[None]})
    expected = _run(typed, {"image": preprocess(frame, recipe)})
    assert expected.max() > 0.9
    assert np.abs(found - expected).mean() < bound


def _run(path: Path, feeds: dict[str, NDArray[np.generic]]) -> NDArray[np.float32]:
    # in FP16 this optimiser rounds biases to steps that underflow
    session = onnxruntime.InferenceSession(str(path), disabled_optimizers=["WeightBiasQuantization"])
    saliency: NDArray[np.float32] = session.run(None, feeds)[0]
    return saliency
