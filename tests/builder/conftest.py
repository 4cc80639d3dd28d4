"""Builds with the fake TensorRT on the in-memory GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import pytest
from skimage import data

from edgesod.builder import tensorrt_make
from edgesod.builder.job import FP32, Job, Made
from edgesod.builder.tensorrt_build import BuildRequest, build_plan
from edgesod.builder.tensorrt_policy import TensorRtOptions
from edgesod.manifest import TensorRtBuild
from edgesod.recipe import Precision

from .small import recipe, write_small


@dataclass
class Told:
    """What a build told."""

    steps: list[str] = field(default_factory=list)
    progress: list[tuple[int, int | None]] = field(default_factory=list)
    requests: list[BuildRequest] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def text(self) -> str:
        return "\n".join(self.steps)


class Bench:
    """Makes engines of the small network in a folder."""

    def __init__(self, folder: Path) -> None:
        self.told = Told()
        self.work = folder / "work"
        self.work.mkdir()
        self.source = write_small(folder / "small.onnx")
        write_small(self.work / FP32)

    def make(
        self, precision: Precision, calib: Path | None = None, frame_hw: tuple[int, int] | None = None, **asked: Any
    ) -> Made:
        what = recipe(precision).model_copy(update={"frame_hw": frame_hw})
        job = Job(what, self.source, self.work, () if calib is None else (calib,), self.told.steps.append, self._progress)
        return tensorrt_make.make_plan(job, TensorRtOptions(**asked))

    def built(self, precision: Precision, calib: Path | None = None, **asked: Any) -> TensorRtBuild:
        """Make an engine and return TensorRT's record of it."""
        made = self.make(precision, calib, **asked)
        assert made.tensorrt is not None
        return made.tensorrt

    def _progress(self, done: int, total: int | None) -> None:
        self.told.progress.append((done, total))

    # the listener that a build in this process has

    def on_step(self, text: str) -> None:
        self.told.steps.append(text)

    def on_fraction(self, fraction: float) -> None:
        self._progress(int(fraction * 1000), 1000)

    def on_workspace(self, workspace_mib: int, free_mib: int) -> None:
        self.told.steps.append(f"workspace {workspace_mib} of {free_mib}")


@pytest.fixture
def in_memory_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The in-memory CUDA provider, and a place for timing caches."""
    monkeypatch.setenv("EDGESOD_CUDA", "memory")
    monkeypatch.setenv("EDGESOD_CACHE", str(tmp_path / "caches"))


@pytest.fixture
def bench(tensorrt: ModuleType, in_memory_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Builds in this process, which is quicker than in one of their own and lets a test see the fake's machine."""
    bench = Bench(tmp_path)

    def here(request: BuildRequest, on_step: Callable[[str], None], on_progress: Callable[..., None]) -> TensorRtBuild:
        request = BuildRequest.model_validate_json(request.model_dump_json())
        bench.told.requests.append(request)
        return build_plan(request, bench, bench.told.cancelled)

    monkeypatch.setattr(tensorrt_make, "build_in_child", here)
    return bench


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for name, image in (("cat", data.chelsea()), ("coffee", data.coffee()), ("rocket", data.rocket())):
        cv2.imwrite(str(folder / f"{name}.png"), cv2.resize(image[:, :, ::-1], (100, 75), interpolation=cv2.INTER_AREA))
    return folder
