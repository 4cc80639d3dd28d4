"""Speed as ratios within one run: each bound lies well below what was measured (``docs/performance.md``).

CPU time is compared, not wall time, wherever something computes: how long others keep the core does not count there.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgesod import Frame, Result, assets, zoo
from edgesod.calibration.qdq import write_qdq
from edgesod.calibration.table import read_table
from edgesod.export.cheap_maps import write_cheap_maps
from edgesod.manifest import this_device
from edgesod.processing.effects import apply_effect
from edgesod.processing.pictures import photograph
from edgesod.processing.postprocess import postprocess
from edgesod.processing.preprocess import preprocess
from edgesod.recipe import recipe_for
from edgesod.runtime import open_session
from edgesod.stream import CallbackSink, Source, run_pipeline

RECIPE = recipe_for("u2netp", "int8")
ATTEMPTS = 3


def at_least(bound: float, measure: Callable[[], float]) -> None:
    """Fail where a ratio stays below its bound however often it is measured."""
    ratios = []
    for _ in range(ATTEMPTS):
        ratios.append(measure())
        if ratios[-1] >= bound:
            return
    raise AssertionError(f"{', '.join(f'{ratio:.2f}' for ratio in ratios)}: never {bound:g}")


def cpu_ratio(slow: Callable[[], object], fast: Callable[[], object], rounds: int) -> float:
    """Return how many times the CPU time of ``fast`` the one of ``slow`` is: the median over interleaved rounds."""

    def seconds(work: Callable[[], object]) -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    slow(), fast()
    return statistics.median(seconds(slow) / seconds(fast) for _ in range(rounds))


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    return np.asarray(cv2.resize(photograph(), (1280, 720), interpolation=cv2.INTER_AREA), np.uint8)


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


@pytest.mark.slow
@pytest.mark.skipif(
    not (this_device().int8_dot_product and this_device().architecture == "x86_64"), reason="this CPU has no VNNI"
)
def test_int8_is_faster_than_fp32_and_cheap_maps_pay(tmp_path: Path, frame: np.ndarray) -> None:
    pytest.importorskip("openvino")
    plain, cheap = zoo.shipped("u2netp").onnx, tmp_path / "cheap.onnx"
    write_cheap_maps(plain, cheap)
    table = read_table(assets.tables() / f"{RECIPE.stem}.json")
    for source in (plain, cheap):
        write_qdq(source, tmp_path / f"int8-{source.stem}.onnx", table, RECIPE.quantisation.method, scheme="cpu")
    feed = {"image": preprocess(frame, RECIPE)}
    with (
        open_session(plain, "fp32", "openvino", threads=1) as fp32,
        open_session(tmp_path / "int8-u2netp.onnx", "int8", "openvino", threads=1) as without,
        open_session(tmp_path / "int8-cheap.onnx", "int8", "openvino", threads=1) as int8,
    ):
        at_least(2.5, lambda: cpu_ratio(lambda: fp32.run(feed), lambda: int8.run(feed), rounds=3))
        at_least(1.02, lambda: cpu_ratio(lambda: without.run(feed), lambda: int8.run(feed), rounds=7))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("stage", "copies"), [("preprocess", 16), ("levels", 9), ("mask", 17), ("overlay", 52)])
def test_glue_costs_a_few_copies_of_the_frame(stage: str, copies: float, frame: np.ndarray) -> None:
    target, tensor = np.empty_like(frame), np.empty((1, 3, *RECIPE.size_hw), np.float32)
    height, width = RECIPE.size_hw
    y, x = np.mgrid[0:height, 0:width]
    saliency = np.exp(-((x - width / 2) ** 2 + (y - height / 2) ** 2) / 5000).astype(np.float32)[None, None]

    def result() -> Result:
        return postprocess(saliency, RECIPE, (720, 1280))

    work: dict[str, Callable[[], object]] = {
        "preprocess": lambda: preprocess(frame, RECIPE, tensor),
        "levels": lambda: result().levels,
        "mask": lambda: result().mask,
        "overlay": lambda: apply_effect("overlay", frame, result()),
    }
    repeat = range(20)

    def copy() -> None:
        for _ in repeat:
            np.copyto(target, frame)

    def stage_itself() -> None:
        for _ in repeat:
            work[stage]()

    # four times what was measured: whether a copy comes from the cache or from memory differs between machines
    at_least(1 / copies, lambda: cpu_ratio(copy, stage_itself, rounds=7))


def test_stages_run_side_by_side() -> None:
    num, stage_s = 25, 0.01  # asleep, so that cores are no matter

    class Slow(Source):
        name = "slow"

        def __iter__(self) -> Iterator[Frame]:
            for k in range(num):
                time.sleep(stage_s)
                yield Frame(np.zeros((8, 8, 3), np.uint8), k)

    def infer(frame: Frame) -> Result:
        time.sleep(stage_s)
        return Result(np.zeros((8, 8), np.float32), (8, 8))

    def ratio() -> float:
        began = time.perf_counter()
        run_pipeline(Slow(), infer, None, [CallbackSink(lambda _frame, _result: time.sleep(stage_s))])
        return 3 * num * stage_s / (time.perf_counter() - began)

    at_least(1.8, ratio)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_compiled_normalisation_pays(kind: str) -> None:
    torch = pytest.importorskip("torch")
    from trainer import kernels
    from trainer.kernels.library import library
    from trainer.training.devices import make_fabric

    if library() is None:
        pytest.skip("needs Linux and a C compiler with OpenMP")
    make_fabric("fp32")  # as in training: freed memory is kept, else mapping it anew costs as much as the work
    norm = torch.nn.BatchNorm2d(64)
    # small enough for a cache: what larger ones cost is memory's speed, and how often the system maps it anew
    x, dy = torch.randn(2, 4, 64, 32, 32).to(getattr(torch, kind)).unbind()
    x, dy = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, dy))
    x.requires_grad_()

    def torchs() -> None:
        for _ in range(20):
            torch.autograd.grad(torch.relu_(norm(x)), x, dy)

    def ours() -> None:
        for _ in range(20):
            torch.autograd.grad(kernels.norm_relu(norm, x), x, dy)

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # two wait for one another, and waiting is time of the CPU
    try:
        at_least(1.15, lambda: cpu_ratio(torchs, ours, 9))
    finally:
        torch.set_num_threads(before)
