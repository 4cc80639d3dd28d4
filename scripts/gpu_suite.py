"""Build, check and time engines on an NVIDIA GPU in one go, and write down each result as soon as there is one.

    python scripts/gpu_suite.py --images SOD --minutes 12
    python scripts/gpu_suite.py --images SOD --rehearse 8.5.3.1 --size 64

U²-NetP first, with its shipped weights; then BASNet and U²-Net, exported here with random weights whose BatchNorm is settled:
their speed means something, their accuracy does not. For each network: FP32, FP16 and INT8 engines by ``edgesod.build``, gate
included, timed by trtexec's rules with and without a CUDA graph; then torch on the same GPU, where ``--torch-python`` has it.
What stands in ``OUT/<gpu>.json`` is not done again, so a run that was cut short goes on where it was; failures are tried again.

A rehearsal runs all of it on the simulated GPU with the tests' fake TensorRT. It proves that the script works and measures
nothing, which its file, its name and its table say.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from documents import run, say  # noqa: E402

from edgesod import assets, zoo  # noqa: E402
from edgesod.bench import bench  # noqa: E402
from edgesod.bench.results import SUFFIX, new_results, results_table  # noqa: E402
from edgesod.bench.roofline import PEAKS, Peaks, floor, work_of  # noqa: E402
from edgesod.builder import GateSet, TensorRtOptions, build  # noqa: E402
from edgesod.builder.tensorrt_policy import policy  # noqa: E402
from edgesod.calibration import calibrate  # noqa: E402
from edgesod.errors import EdgesodError, InputError  # noqa: E402
from edgesod.files import read_json, replacing, slug, write_atomically  # noqa: E402
from edgesod.manifest import FILE_NAME, Manifest, read_manifest  # noqa: E402
from edgesod.processing.preprocess import preprocess  # noqa: E402
from edgesod.processing.resize import resize_image  # noqa: E402
from edgesod.recipe import GateBounds, Precision, Recipe, recipe_for  # noqa: E402
from edgesod.runtime import Runtime  # noqa: E402
from edgesod.runtime.cuda import VARIABLE, open_cuda  # noqa: E402
from edgesod.runtime.tensorrt_version import require_tensorrt  # noqa: E402

NETWORKS = {"u2netp": 320, "basnet": 256, "u2net": 320}
"""In the order in which they are done, and the size their papers take."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
TORCH_MODES = ("eager fp32", "eager fp16", "compile fp32", "compile fp16")
FRAME_HW = (720, 1280)
SETTLING_IMAGES, CALIBRATION_IMAGES = 8, 16
# the rest are cuBLAS, cuBLASLt and cuDNN
OWN_TACTICS = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")


class OutOfTime(KeyboardInterrupt):
    """The minutes are over; whatever handles Ctrl-C handles this."""


def main() -> int:
    """Do what is left to do, as far as the time allows, and show what there is; return the exit code."""
    options = parse()
    if options.rehearse:
        rehearse(options.rehearse, options.work)
    suite = Suite(options)
    try:
        with no_longer_than(options.minutes):
            for name in options.networks:
                suite.do(name)
    except OutOfTime:
        say(f"{options.minutes:g} minutes are over; the same command goes on from here")
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        return 130
    print(suite.table())
    say(f"results: {suite.path}")
    return 1 if suite.failures() else 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="for the gate: images/ and masks/, or images alone")
    parser.add_argument("--minutes", type=float, default=12, help="stop after so many (12)")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results", help="folder for <gpu>.json and its table")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "gpu-suite", help="folder for ONNX files and engines")
    parser.add_argument("--seconds", type=float, default=3.0, help="least time of each measurement (3, as trtexec)")
    parser.add_argument("--size", type=int, help="another input size for every network, for rehearsals")
    parser.add_argument("--torch-python", default=sys.executable, help="a Python that has torch; this one by default")
    parser.add_argument("--torch-modes", nargs="*", default=list(TORCH_MODES), choices=TORCH_MODES)
    parser.add_argument(
        "--own-tactics", action="store_true", help="keep TensorRT from cuBLAS and cuDNN, where they are missing"
    )
    parser.add_argument("--peaks", type=peaks, help="GB/s,FP32,FP16,INT8 (10¹² operations a second) of a GPU not known here")
    parser.add_argument("--rehearse", metavar="VERSION", help="simulate GPU and TensorRT of this version; measures nothing")
    return parser.parse_args()


def peaks(text: str) -> Peaks:
    """Read ``--peaks``."""
    return Peaks(*(float(number) for number in text.split(",")))


def rehearse(version: str, work: Path) -> None:
    """Put the in-memory GPU and the tests' fake TensorRT in the real ones' place, here and in child processes."""
    on_path = [str(ROOT / "tests" / "contract" / "on_path"), str(ROOT)]
    sys.path[:0] = on_path
    paths = [*on_path, *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ |= {
        VARIABLE: "memory",
        "FAKE_TENSORRT": version,
        "PYTHONPATH": os.pathsep.join(paths),
        "EDGESOD_CACHE": str(work / "cache"),  # timing caches of a fake have no business among the real ones
    }


@contextmanager
def no_longer_than(minutes: float) -> Iterator[None]:
    """Raise :class:`OutOfTime` within the block once the time is over."""

    def stop(_number: int, _frame: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, minutes * 60)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Suite:
    """The results so far, and how to get more."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.began = time.monotonic()
        with open_cuda() as cuda:
            version = require_tensorrt(cuda)
            gpu, provider = cuda.device_info(), cuda.name
        self.is_rehearsal = bool(options.rehearse)
        self.peaks = options.peaks or PEAKS.get(gpu.name)
        self.results = new_results(gpu, version, provider, is_rehearsal=self.is_rehearsal)
        stem = slug(f"rehearsal {version}" if self.is_rehearsal else gpu.name)
        self.path = options.out / f"{stem}{SUFFIX}"
        if self.path.is_file():
            before = read_json(self.path)
            for key in ("kind", "gpu", "tensorrt"):
                if before.get(key) != self.results[key]:
                    raise InputError(
                        f"{self.path} holds results of another {key}: {before.get(key)}, here is {self.results[key]}",
                        hint="move it away, or write elsewhere: --out FOLDER",
                    )
            self.results |= {key: before[key] for key in ("engines", "torch", "work")}
        self.images = GateSet(options.images)
        self.frame = resize_image(next(iter(self.images))[0], FRAME_HW, "linear")

    def do(self, name: str) -> None:
        """Do what is left of one network; a failure is a result too."""
        for precision in self.options.precisions:
            recipe = self.recipe(name, precision)
            self.step("engines", recipe.name, lambda recipe=recipe: self.engine(recipe))
        todo = [mode for mode in self.options.torch_modes if not self.is_done("torch", f"{self.stem(name)} {mode}")]
        if todo:
            self.time_torch(name, todo)

    def is_done(self, section: str, key: str) -> bool:
        """Say whether there is a result that is not a failure."""
        return "failed" not in self.results[section].get(key, {"failed": "not tried"})

    def step(self, section: str, key: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Get one result and write it down."""
        if self.is_done(section, key):
            say(f"{key}: done before")
            return
        say(f"{key} ({(time.monotonic() - self.began) / 60:.1f} of {self.options.minutes:g} min)")
        try:
            found = measure()
        except EdgesodError as error:
            found = {"failed": f"{type(error).__name__}: {error}", "hint": error.hint}
            say(f"  failed: {error}")
        self.keep(section, key, found)

    def keep(self, section: str, key: str, found: dict[str, Any]) -> None:
        """Write a result down, whole or not at all, marked if it is none."""
        mark = {"rehearsal": "not a measurement"} if self.is_rehearsal else {}
        self.results[section][key] = mark | found
        self.results["updated"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
        write_atomically(self.path, (json.dumps(self.results, indent=1, ensure_ascii=False) + "\n").encode())
        write_atomically(self.path.with_suffix(".md"), (self.table() + "\n").encode())

    def table(self) -> str:
        """Return the results as a table."""
        return results_table(self.results)

    def failures(self) -> list[str]:
        """Return what was tried and failed."""
        return [key for part in ("engines", "torch") for key, found in self.results[part].items() if "failed" in found]

    def size_hw(self, name: str) -> tuple[int, int]:
        """Return a network's size here."""
        size = self.options.size or NETWORKS[name]
        return size, size

    def stem(self, name: str) -> str:
        """Return what files of a network at its size here begin with."""
        return self.recipe(name, "fp32").stem

    def recipe(self, name: str, precision: Precision) -> Recipe:
        """Return the shipped recipe of a network that is trained, else a plain one whose gate refuses non-finite values alone."""
        if name in zoo.names():
            return recipe_for(name, precision).model_copy(update={"size_hw": self.size_hw(name)})
        anything = GateBounds(map_mae=1, mae_drift=1, max_f_drift=1)
        return Recipe(model=name, size_hw=self.size_hw(name), precision=precision, gate=anything)

    def engine(self, recipe: Recipe) -> dict[str, Any]:
        """Build an engine unless it was built before the last run ended, and time it."""
        onnx, table = self.prepare(recipe)
        self.results["work"].setdefault(recipe.stem, vars(work_of(onnx)))
        folder = self.options.work / "engines" / recipe.name
        began = time.monotonic()
        manifest = built_before(folder, recipe, onnx)
        if manifest is None:
            tensorrt = TensorRtOptions(tactic_sources=OWN_TACTICS) if self.options.own_tactics else None
            needs_ranges = policy(self.results["tensorrt"], recipe.precision, tensorrt).onnx != "fp32"
            build(
                recipe,
                onnx,
                table=table if needs_ranges else None,
                verify=self.options.images,
                backend="tensorrt",
                tensorrt=tensorrt,
                root=folder.parent,
                on_step=lambda text: say(f"  {text}"),
            )
            manifest = read_manifest(folder)
        assert manifest.tensorrt is not None  # it was built by TensorRT
        found: dict[str, Any] = {
            "model": recipe.model,
            "size": list(recipe.size_hw),
            "precision": recipe.precision,
            "weights": "shipped" if recipe.model in zoo.names() else "random, BatchNorm settled: for speed only",
            "build_s": round(time.monotonic() - began, 1),
            "build": manifest.tensorrt.model_dump(mode="json", exclude={"gpu", "version"}),
            "gate": manifest.gate.model_dump(mode="json", exclude={"warnings"}),
            "with_graph": self.time_engine(folder / manifest.engine_file, recipe, graph=True),
            "without_graph": self.time_engine(folder / manifest.engine_file, recipe, graph=False),
        }
        if self.peaks is not None:
            found["floor"] = vars(floor(work_of(onnx), recipe.precision, self.peaks))
        return found | nvidia_smi()

    def time_engine(self, plan: Path, recipe: Recipe, *, graph: bool) -> dict[str, Any]:
        """Time an engine by trtexec's rules."""
        from edgesod.runtime.tensorrt_session import TensorRtSession  # not before a GPU was found

        session = TensorRtSession(plan, graph=graph)
        with Runtime.from_session(session, recipe) as runtime:
            report = bench(runtime, self.frame, duration_s=self.options.seconds)
            return {
                "graph_reason": session.graph_reason,
                "memory": session.memory,
                "throughput_fps": report.throughput_fps,
                "stages_ms": {name: summary.as_dict() for name, summary in report.stages.items()},
                "warnings": list(report.warnings),
            }

    def prepare(self, recipe: Recipe) -> tuple[Path, Path | None]:
        """Return the ONNX of a network and its calibration table; ``None`` means the shipped table."""
        if recipe.model in zoo.names() and (assets.tables() / f"{recipe.stem}.json").is_file():
            return zoo.shipped(recipe.model).onnx, None
        onnx, table = (self.options.work / f"{recipe.stem}{suffix}" for suffix in (".onnx", ".json"))
        if not onnx.is_file():
            self.export(recipe, onnx)
        if not table.is_file():
            say(f"  calibrating on {CALIBRATION_IMAGES} images")
            folder = self.options.images / "images"
            images = folder if folder.is_dir() else self.options.images
            calibrate(onnx, recipe, images, limit=CALIBRATION_IMAGES).write(table)
        return onnx, table

    def export(self, recipe: Recipe, onnx: Path) -> None:
        """Have torch write a network's ONNX, and simplify it."""
        from edgesod.export.simplify import simplify_onnx

        say(f"  exporting {recipe.stem}")
        with replacing(onnx.with_suffix(".plain.onnx")) as plain:
            for _ in self.torch(recipe, do="export", onnx=str(plain)):
                pass
            simplify_onnx(plain, onnx)

    def time_torch(self, name: str, modes: list[str]) -> None:
        """Time torch on the same GPU, mode by mode."""
        stem = self.stem(name)
        say(f"{stem} in torch ({(time.monotonic() - self.began) / 60:.1f} of {self.options.minutes:g} min)")
        try:
            for found in self.torch(self.recipe(name, "fp32"), do="time", modes=modes, seconds=self.options.seconds):
                self.keep("torch", f"{stem} {found.pop('mode')}", found)
        except EdgesodError as error:
            say(f"  failed: {error}")
            self.keep("torch", f"{stem} {modes[0]}", {"failed": str(error)})

    def torch(self, recipe: Recipe, **task: object) -> Iterator[dict[str, Any]]:
        """Have gpu_torch.py do something, and yield its answers as they come."""
        sample = self.options.work / f"{recipe.stem}.npy"
        if not sample.is_file():
            images = [preprocess(image, recipe) for (image, _), _ in zip(self.images, range(SETTLING_IMAGES), strict=False)]
            with replacing(sample) as temporary:
                np.save(temporary, np.concatenate(images))
        weights = str(zoo.shipped(recipe.model).weights) if recipe.model in zoo.names() else None
        task |= {"network": recipe.model, "size": recipe.size_hw, "seed": 0, "weights": weights, "sample": str(sample)}
        # a rehearsal's torch runs on the CPU, where FP16 takes seconds an image
        task |= {"warm_up_ms": 0, "iterations": 1} if self.is_rehearsal else {"warm_up_ms": 200, "iterations": 10}
        command = [self.options.torch_python, ROOT / "scripts" / "gpu_torch.py", json.dumps(task)]
        # the packages of this Python, which TensorRT's may want on PYTHONPATH, are not those of the other one
        other = {"PYTHONPATH": str(ROOT), "PYTHONHOME": ""} if self.options.torch_python != sys.executable else {}
        environment = {key: value for key, value in (os.environ | other).items() if value}
        log = self.options.work / "torch.log"
        with open(log, "w", encoding="utf-8") as errors:
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
            assert child.stdout is not None
            try:
                for line in child.stdout:
                    yield json.loads(line)
                child.wait()
            finally:
                child.kill()
                child.wait()
                child.stdout.close()
        if child.returncode:
            last = log.read_text(encoding="utf-8").strip().splitlines()[-1:]
            raise InputError(
                f"{self.options.torch_python} cannot {task['do']} {recipe.stem}: {''.join(last)}",
                hint="--torch-python PYTHON, one with torch, OpenCV, pydantic and safetensors",
            )


def built_before(folder: Path, recipe: Recipe, onnx: Path) -> Manifest | None:
    """Return the manifest of an engine that was built from this very recipe and ONNX, if there is one."""
    if not (folder / FILE_NAME).is_file():
        return None
    manifest = read_manifest(folder)
    return manifest if manifest.is_from(recipe, onnx) else None


def nvidia_smi() -> dict[str, Any]:
    """Return the driver and the clocks as they are just after a measurement, where ``nvidia-smi`` is there to say."""
    asked = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,temperature.gpu"
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    values = (value.strip() for value in done.stdout.splitlines()[0].split(","))
    return {"nvidia_smi": dict(zip(asked.split(","), values, strict=False))}


if __name__ == "__main__":
    run(main)
