"""Frames to results: against torch, from engine folders and names, from many threads, and everything refused."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from edgesod import assets
from edgesod.errors import BackendError, CheckFailed, InputError, ManifestMismatch, UsageError
from edgesod.manifest import read_manifest, this_device
from edgesod.processing.preprocess import preprocess
from edgesod.recipe import Postprocessing, Recipe, recipe_for
from edgesod.runtime import MemorySession, Runtime, available_backends, open_session
from edgesod.stream import open_source
from edgesod.types import TensorSpec
from tests.helpers.engines import INPUT, OUTPUT, RECIPE, SIZE_HW, export_u2netp, make_engine, run_tiny, write_tiny

INSTALLED = [name for name, state in available_backends().items() if state.is_usable and name != "tensorrt"]


def _photograph(name: str = "coffee") -> np.ndarray:
    return np.ascontiguousarray(getattr(data, name)()[:, :, ::-1])


def _memory(recipe: Recipe = RECIPE) -> Runtime:
    return Runtime.from_session(MemorySession(lambda f: {"saliency": run_tiny(f["image"])}, [INPUT], [OUTPUT]), recipe)


@pytest.fixture(scope="module")
def u2netp(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe, np.ndarray]:
    pytest.importorskip("torch")
    recipe = Recipe(model="u2netp", size_hw=(64, 96), precision="fp32")
    path = tmp_path_factory.mktemp("u2netp") / "u2netp.onnx"
    batch = np.concatenate([preprocess(_photograph(name), recipe) for name in ("coffee", "cat", "rocket")])
    return path, recipe, export_u2netp(path, batch)


@pytest.mark.parametrize("backend", INSTALLED)
def test_u2netp_agrees_with_torch(u2netp: tuple[Path, Recipe, np.ndarray], backend: str) -> None:
    path, recipe, expected = u2netp
    assert np.ptp(expected) > 0.5  # not a map that anything would agree with
    with Runtime.from_session(open_session(path, "fp32", backend), recipe) as runtime:
        result = runtime(_photograph())
    assert np.abs(result.map_hw - expected[0, 0]).max() < 1 / 255


def test_result() -> None:
    recipe = RECIPE.model_copy(update={"postprocessing": Postprocessing(threshold=0.3)})
    image = _photograph()
    with _memory(recipe) as runtime:
        result = runtime(image)
    assert result.map_hw.shape == SIZE_HW
    assert result.saliency.shape == result.mask.shape == result.size_hw == image.shape[:2]
    assert result.saliency.dtype == np.float32
    np.testing.assert_array_equal(result.mask, np.where(result.saliency >= 0.3, 255, 0))
    assert result.times_ms.keys() == {"preprocess", "inference", "postprocess"}
    assert result.frame is None
    np.testing.assert_allclose(result.map_hw, run_tiny(preprocess(image, recipe))[0, 0], atol=1e-6)


def test_what_a_runtime_says_about_itself() -> None:
    with _memory() as runtime:
        assert (runtime.recipe, runtime.precision, runtime.size_hw, runtime.backend) == (RECIPE, "fp32", SIZE_HW, "memory")
        assert runtime.reason.startswith("memory: ")
        runtime.warm_up()


@pytest.mark.parametrize("several", [list, tuple])
def test_several_images(several: type) -> None:
    images = several([_photograph("coffee"), _photograph("cat")])
    with _memory() as runtime:
        results = runtime(images)
        assert [r.size_hw for r in results] == [i.shape[:2] for i in images]
        np.testing.assert_array_equal(results[1].map_hw, runtime(images[1]).map_hw)
        assert runtime([]) == []


def test_results_outlive_later_frames() -> None:
    with _memory() as runtime:
        first = runtime(_photograph("coffee"))
        before = first.map_hw.copy()
        runtime(_photograph("cat"))
    np.testing.assert_array_equal(first.map_hw, before)


def test_grey_and_alpha() -> None:
    image = _photograph()
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    with _memory() as runtime:
        expected = runtime(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)).map_hw
        np.testing.assert_array_equal(runtime(grey).map_hw, expected)
        np.testing.assert_array_equal(runtime(grey[:, :, None]).map_hw, expected)
        with_alpha = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)
        np.testing.assert_array_equal(runtime(with_alpha).map_hw, runtime(image).map_hw)


@pytest.mark.parametrize("image", [None, "photo.jpg", np.empty((0, 0, 3), np.uint8), np.zeros((4, 4, 3)), [None], 7])
def test_bad_images_are_errors_and_harmless(image: object) -> None:
    with _memory() as runtime:
        with pytest.raises(InputError):
            runtime(image)  # type: ignore[call-overload]
        runtime(_photograph())


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 20_000, 3)])
def test_extreme_sizes(shape: tuple[int, int, int]) -> None:
    with _memory() as runtime:
        assert runtime(np.zeros(shape, np.uint8)).mask.shape == shape[:2]


@pytest.mark.parametrize("backend", ["memory", *INSTALLED])
def test_threads_share_a_runtime(backend: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (40, 50, 3), np.uint8) for _ in range(40)]
    session = None if backend == "memory" else open_session(write_tiny(tmp_path / "m.onnx"), "fp32", backend)
    with _memory() if session is None else Runtime.from_session(session, RECIPE) as runtime:
        expected = [runtime(image).map_hw for image in images]
        with ThreadPoolExecutor(4) as pool:
            found = [result.map_hw for result in pool.map(runtime, images)]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_frame_at_a_time() -> None:
    inside = threading.Semaphore(1)

    def function(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert inside.acquire(blocking=False)
        outputs = {"saliency": run_tiny(feeds["image"])}
        inside.release()
        return outputs

    with Runtime.from_session(MemorySession(function, [INPUT], [OUTPUT], delay_s=0.002), RECIPE) as runtime:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(runtime, [_photograph()] * 12))


def test_closing() -> None:
    runtime = _memory()
    runtime.close()
    runtime.close()
    with pytest.raises(BackendError, match="closed"):
        runtime(_photograph())


def test_values_that_are_not_finite() -> None:
    def function(_feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"saliency": np.full(OUTPUT.shape, np.nan, np.float32)}

    with Runtime.from_session(MemorySession(function, [INPUT], [OUTPUT]), RECIPE) as runtime:
        with pytest.raises(CheckFailed, match="not finite"):
            runtime(_photograph())


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        ([INPUT, TensorSpec("more", (1,), "float32")], [OUTPUT], "more float32"),
        ([], [OUTPUT], "takes nothing"),
        ([TensorSpec("image", (1, 1, *SIZE_HW), "float32")], [OUTPUT], r"\(1, 1, 32, 48\)"),
        ([TensorSpec("image", (1, 3, 48, 32), "float32")], [OUTPUT], r"\(1, 3, 48, 32\)"),
        ([TensorSpec("image", (1, 3, *SIZE_HW), "uint8")], [OUTPUT], "uint8"),
        ([INPUT], [OUTPUT, TensorSpec("side", (1, 1, 2, 2), "float32")], "side float32"),
        ([INPUT], [TensorSpec("saliency", (1, 2, *SIZE_HW), "float32")], r"\(1, 2, 32, 48\)"),
        ([INPUT], [TensorSpec("saliency", SIZE_HW, "float32")], r"\(32, 48\)"),
        ([INPUT], [], "returns nothing"),
    ],
)
def test_networks_that_are_something_else(inputs: list[TensorSpec], outputs: list[TensorSpec], words: str) -> None:
    session = MemorySession(lambda feeds: feeds, inputs, outputs)
    with pytest.raises(InputError, match=words):
        Runtime.from_session(session, RECIPE)
    with pytest.raises(BackendError, match="closed"):
        session.run({})


def test_any_tensor_names(tmp_path: Path) -> None:
    session = open_session(write_tiny(tmp_path / "m.onnx", input_name="input.1"), "fp32", "onnxruntime")
    with Runtime.from_session(session, RECIPE) as runtime, _memory() as ours:
        np.testing.assert_allclose(runtime(_photograph()).map_hw, ours(_photograph()).map_hw, atol=1e-5)


@pytest.mark.parametrize("backend", INSTALLED)
def test_engine_folder(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_engine(tmp_path / "my-engine", backend=backend)
    with Runtime(folder) as runtime, _memory() as ours:
        assert runtime.backend == backend
        assert runtime.reason.startswith(f"{backend}: ")
        assert runtime.recipe == RECIPE
        np.testing.assert_allclose(runtime(_photograph()).map_hw, ours(_photograph()).map_hw, atol=1e-5)
    with Runtime(str(folder), precision="fp32", backend=backend, threads=1) as runtime:
        assert runtime.backend == backend
    monkeypatch.chdir(tmp_path)
    with Runtime("my-engine") as runtime:
        assert runtime.recipe == RECIPE


def test_engine_folder_refusals(tmp_path: Path) -> None:
    folder = make_engine(tmp_path / "engine")
    with pytest.raises(UsageError, match="fp32 engine, int8"):
        Runtime(folder, precision="int8")
    with pytest.raises(BackendError, match=r"built for onnxruntime, openvino"):
        Runtime(folder, backend="openvino")
    with pytest.raises(InputError, match="not an engine folder"):
        Runtime(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not an engine folder"):
        Runtime("engines/nowhere")
    with pytest.raises(BackendError, match="TensorRT"):
        Runtime(make_engine(tmp_path / "trt", backend="tensorrt"))


def test_engine_folder_that_was_changed(tmp_path: Path) -> None:
    folder = make_engine(tmp_path / "engine")
    (folder / "model.onnx").write_bytes(b"something else")
    with pytest.raises(ManifestMismatch, match="sha256") as caught:
        Runtime(folder)
    assert "edgesod build --model tiny --fp32" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inputs": (TensorSpec(name="picture", shape=INPUT.shape, dtype="float32"),)}, "picture .* the engine has image"),
        ({"outputs": (TensorSpec(name="saliency", shape=(1, 1, 9, 9), dtype="float32"),)}, r"\(1, 1, 9, 9\), the engine has"),
        ({"device": this_device().model_copy(update={"architecture": "riscv64"})}, "riscv64"),
    ],
)
def test_engine_folder_with_another_manifest(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(ManifestMismatch, match=words):
        Runtime(make_engine(tmp_path / "engine", **changes))


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGESOD_ENGINES", str(tmp_path / "built"))
    monkeypatch.setattr(assets, "models", lambda: tmp_path / "models")
    fp32, int8 = recipe_for("u2netp", "fp32"), recipe_for("u2netp", "int8")
    with pytest.raises(InputError, match="no model 'u2netp' is shipped"):
        Runtime("u2netp", "fp32")
    (tmp_path / "models/u2netp").mkdir(parents=True)
    (tmp_path / "models/u2netp/card.json").write_text("{}")
    shipped = write_tiny(tmp_path / "models/u2netp/u2netp.onnx", fp32.size_hw)
    with Runtime("u2netp", "fp32", backend="onnxruntime") as runtime:
        assert (runtime.precision, runtime.backend) == ("fp32", "onnxruntime")
        assert runtime(_photograph()).map_hw.shape == fp32.size_hw
    built = make_engine(tmp_path / "built" / fp32.name, fp32)
    with Runtime("u2netp", "fp32", backend="onnxruntime") as runtime:
        assert f"what {built.name} was built" in runtime.reason
    read_manifest(built).model_copy(update={"revision": 0}).write(built)
    with Runtime("u2netp", "fp32", backend="onnxruntime") as runtime:
        assert "asked for" in runtime.reason  # the shipped file: the engine is an older builder's
    with pytest.raises(InputError, match="not been built") as caught:
        Runtime("u2netp")
    assert caught.value.hint == "edgesod build --model u2netp --int8"
    make_engine(tmp_path / "built" / int8.name, int8)
    with Runtime("u2netp") as runtime:
        assert runtime.precision == "int8"
    manifest = read_manifest(tmp_path / "built" / int8.name)
    manifest.model_copy(update={"revision": 0}).write(tmp_path / "built" / int8.name)
    with pytest.raises(ManifestMismatch, match="or an older version built it"):
        Runtime("u2netp")
    manifest.write(tmp_path / "built" / int8.name)
    content = shipped.read_bytes()
    shipped.write_bytes(content + b"\0")  # a newer version ships other weights
    with pytest.raises(ManifestMismatch, match="was not built from the u2netp") as other:
        Runtime("u2netp")
    assert "edgesod build --model u2netp --int8" in other.value.hint
    with Runtime(tmp_path / "built" / int8.name) as runtime:
        assert runtime.precision == "int8"
    shipped.write_bytes(content)
    (tmp_path / "u2netp").mkdir()  # a folder of that name is nothing to a model's
    with Runtime("u2netp", "fp32", backend="openvino"):
        pass
    with pytest.raises(InputError, match="nothing-like-it"):
        Runtime("nothing-like-it")


def test_stream(tmp_path: Path) -> None:
    for k in range(3):
        cv2.imwrite(str(tmp_path / f"{k}.png"), np.full((20, 30, 3), 60 * k, np.uint8))
    with _memory() as runtime:
        results = list(runtime.stream(str(tmp_path)))
        assert [r.frame.index for r in results if r.frame] == [0, 1, 2]
        assert [int(r.frame.image[0, 0, 0]) for r in results if r.frame] == [0, 60, 120]
        np.testing.assert_array_equal(results[1].map_hw, runtime(results[1].frame.image).map_hw)
        assert len(list(runtime.stream(open_source(tmp_path)))) == 3
        for result in runtime.stream(tmp_path):
            assert result.mask.shape == (20, 30)
            break  # walking away ends the reading thread
    assert not [t for t in threading.enumerate() if t.name == "edgesod-capture"]


def test_a_steady_stream_averages_each_source_by_itself(tmp_path: Path) -> None:
    for name, levels in (("a", (0, 90, 180)), ("b", (250, 120, 30))):
        (tmp_path / name).mkdir()
        for k, level in enumerate(levels):
            cv2.imwrite(str(tmp_path / name / f"{k}.png"), np.full((20, 30, 3), level, np.uint8))
    with _memory() as runtime:
        averages: dict[int, np.ndarray] = {}
        for result in runtime.stream([tmp_path / "a", tmp_path / "b"], steady="smooth=0.25"):
            assert result.frame is not None
            new, source = runtime(result.frame.image).map_hw, result.frame.source
            averages[source] = new if source not in averages else 0.75 * averages[source] + 0.25 * new
            np.testing.assert_allclose(result.map_hw, averages[source], atol=1e-6)
        assert sorted(averages) == [0, 1]
        with pytest.raises(UsageError, match="sparkle"):
            next(runtime.stream(tmp_path / "a", steady="sparkle"))


def test_stream_of_nothing(tmp_path: Path) -> None:
    with _memory() as runtime, pytest.raises(InputError):
        next(runtime.stream(str(tmp_path / "missing.mp4")))
