"""Pictures and masks are moved together, as the recipe says, and normalised as the runtime normalises them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from skimage.transform import resize as skimage_resize

from edgesod.errors import InputError
from edgesod.evaluation.pairs import EvaluationSet
from edgesod.processing.pictures import photograph
from edgesod.processing.preprocess import preprocess
from edgesod.recipe import Recipe
from tests.helpers.pairs import write_pairs
from trainer import networks
from trainer.data.loader import ResumableOrder, TrainingSet, load, normalise_batch
from trainer.data.transforms import Augmentation, augment
from trainer.training.recipe import load_recipe

STILL = {"flip": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "grey": 0.0}


@pytest.fixture(scope="module")
def pair() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A picture whose red channel is its mask, so that one moved without the other shows."""
    image = np.ascontiguousarray(photograph("cat")[:, :, ::-1])
    image[..., 0] = np.where(image[..., 1] > 110, 255, 0)
    return image, np.ascontiguousarray(image[..., 0])


def _view(pair: tuple[NDArray[np.uint8], NDArray[np.uint8]], size: int, seed: int = 0, **options: object) -> tuple:
    return augment(*pair, size, Augmentation.model_validate(STILL | options), np.random.default_rng(seed))


@pytest.mark.parametrize("options", [{"min_crop": 0.5}, {"rescale": 96}, {"flip": 0.5, "flip_vertical": 0.5}], ids=str)
def test_picture_and_mask_move_together(pair: tuple, options: dict[str, object]) -> None:
    views = [_view(pair, 64, seed, **options) for seed in range(8)]
    for image, mask in views:
        assert image.shape == (64, 64, 3)
        np.testing.assert_array_equal(image[..., 0], mask)
    assert len({image.tobytes() for image, _ in views}) >= 4


def test_nothing_asked_for_is_the_runtimes_resize(pair: tuple) -> None:
    image, _ = _view(pair, 96, min_crop=1.0)
    how = Recipe(model="any", size_hw=(96, 96), precision="fp32").preprocessing
    fed = normalise_batch(torch.from_numpy(image).permute(2, 0, 1)[None], how)
    runtime = preprocess(np.ascontiguousarray(pair[0][:, :, ::-1]), Recipe(model="any", size_hw=(96, 96), precision="fp32"))
    np.testing.assert_allclose(fed.numpy(), runtime, atol=1e-5)


def test_rescale_cuts_a_window_out_of_the_whole_picture_brought_to_size(pair: tuple) -> None:
    whole, whole_mask = _view(pair, 96, rescale=96, mask_resize="nearest")
    corners = set()
    for seed in range(20):
        image, mask = _view(pair, 80, seed, rescale=96, mask_resize="nearest")
        places = np.argwhere((np.lib.stride_tricks.sliding_window_view(whole, image.shape) == image).all(axis=(3, 4, 5)))
        assert len(places) == 1
        top, left = places[0, :2]
        np.testing.assert_array_equal(mask, whole_mask[top : top + 80, left : left + 80])
        corners.add((top, left))
    assert len(corners) > 10
    assert all(0 <= value <= 16 for corner in corners for value in corner)


def test_nearest_masks_are_what_scikit_image_makes(pair: tuple) -> None:
    small = cv2.resize(pair[1], (150, 100), interpolation=cv2.INTER_AREA)
    image = np.repeat(small[..., None], 3, axis=2)
    _, mask = _view((image, small), 64, rescale=64, mask_resize="nearest")
    theirs = skimage_resize(small, (64, 64), order=0, mode="constant", preserve_range=True, anti_aliasing=False)
    np.testing.assert_array_equal(mask, theirs)


def test_flips_are_those_asked_for(pair: tuple) -> None:
    still, _ = _view(pair, 64, min_crop=1.0)
    aside, _ = _view(pair, 64, min_crop=1.0, flip=1.0)
    over, _ = _view(pair, 64, min_crop=1.0, flip_vertical=1.0)
    np.testing.assert_array_equal(aside, still[:, ::-1])
    np.testing.assert_array_equal(over, still[::-1])


def test_colours_change_as_written(pair: tuple) -> None:
    class Extremes:
        """Stands in for a generator: the largest change of each kind, and no crop or flip."""

        def uniform(self, low: float, high: float) -> float:
            return high

        def integers(self, *_: int) -> int:
            return 0

        def random(self) -> float:
            return 1.0

    options = Augmentation(min_crop=1.0, brightness=0.2, contrast=0.3, saturation=0.4)
    image, _ = augment(*pair, 300, options, Extremes())  # type: ignore[arg-type]
    still, _ = _view(pair, 300, min_crop=1.0)
    x = still.astype(np.float64) * 1.2
    x = (x - x.mean()) * 1.3 + x.mean()
    grey = x @ [0.299, 0.587, 0.114]
    expected = np.clip(grey[..., None] + (x - grey[..., None]) * 1.4, 0, 255)
    assert np.abs(image - expected).max() <= 1


@pytest.mark.parametrize("name", networks.names())
def test_a_batch_is_normalised_as_the_runtime_would(name: str) -> None:
    how = networks.config(name).preprocessing
    image_BGR = cv2.resize(photograph("coffee"), (64, 48))
    pixels = torch.from_numpy(np.ascontiguousarray(image_BGR[:, :, ::-1])).permute(2, 0, 1)[None]
    x = normalise_batch(pixels, how)
    assert x.is_contiguous(memory_format=torch.channels_last)
    runtime = preprocess(image_BGR, Recipe(model="any", size_hw=(48, 64), precision="fp32", preprocessing=how))
    np.testing.assert_allclose(x.numpy(), runtime, atol=1e-4)


def test_the_image_maximum_divides_each_picture_by_its_own() -> None:
    how = networks.config("u2netp").preprocessing.model_copy(update={"divide_by": "max"})
    pixels = torch.stack([torch.full((3, 4, 4), 200, dtype=torch.uint8), torch.full((3, 4, 4), 50, dtype=torch.uint8)])
    x = normalise_batch(pixels, how)
    torch.testing.assert_close(x[0], x[1])
    torch.testing.assert_close(x[0, :, 0, 0], (1 - torch.tensor(how.mean)) / torch.tensor(how.std))


def test_samples_depend_on_seed_epoch_and_index_alone(tmp_path: Path) -> None:
    source = EvaluationSet(write_pairs(tmp_path / "set", 8))

    def batches(workers: int, seed: int = 1, seen: int = 0) -> list[torch.Tensor]:
        dataset = TrainingSet(source, source.stems, 32, Augmentation(), seed)
        loader = load(dataset, ResumableOrder(8, 4, seed, seen), workers)
        return [next(loader)[0] for _ in range(3)]

    here = batches(0)
    assert all(torch.equal(a, b) for a, b in zip(here, batches(1), strict=True))
    assert torch.equal(batches(0, seen=4)[0], here[1])
    assert not torch.equal(batches(0, seed=2)[0], here[0])
    assert not torch.equal(here[0].sort(dim=0).values, here[2].sort(dim=0).values)


def test_a_broken_picture_reads_the_same_from_a_worker(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "set", 4)
    (data / "masks" / "002.png").write_bytes(b"")
    source = EvaluationSet(data)
    told = []
    for workers in (0, 1):
        with pytest.raises(InputError) as caught:
            next(load(TrainingSet(source, source.stems, 32, Augmentation(), 0), ResumableOrder(4, 4, 0, 0), workers))
        told.append((str(caught.value), caught.value.hint))
    assert told[0] == told[1]
    assert told[0][0].endswith("002.png cannot be decoded as a picture: the file is empty")


def test_resize_of_the_recipe_reaches_the_pictures(tmp_path: Path) -> None:
    source = EvaluationSet(write_pairs(tmp_path / "set", 1, size=96))
    still = Augmentation(min_crop=1.0, flip=0, brightness=0, contrast=0, saturation=0, grey=0)
    image_RGB = source.read("000")[0][:, :, ::-1]
    image, _, _ = TrainingSet(source, ["000"], 40, still, 0, "linear")[0, 0]
    np.testing.assert_array_equal(image.permute(1, 2, 0), cv2.resize(np.ascontiguousarray(image_RGB), (40, 40)))
    halved, _, _ = TrainingSet(source, ["000"], 40, still, 0)[0, 0]
    assert not torch.equal(image, halved)


def test_two_ways_to_crop_and_windows_too_large_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="two ways to crop"):
        Augmentation(rescale=320, min_crop=0.9)
    path = tmp_path / "r.toml"
    path.write_text(
        'network = "u2netp"\nstages = [{images = 8, size = 288, batch = 4, lr = 0.1}]\n[augmentation]\nrescale = 256\n'
    )
    with pytest.raises(InputError, match="stage 1 cuts 288 pixels out of pictures rescaled to 256"):
        load_recipe(str(path))


@pytest.mark.parametrize(("name", "rescale", "size"), [("u2net", 320, 288), ("u2netp", 320, 288), ("basnet", 256, 224)])
def test_the_authors_crops_are_in_their_recipes(name: str, rescale: int, size: int) -> None:
    recipe = load_recipe(name)
    assert (recipe.augmentation.rescale, recipe.stages[0].size) == (rescale, size)
    assert recipe.augmentation.flip_vertical == (0.0 if name == "basnet" else 0.5)
