"""One contender of ``peers.py`` in a process of its own: told what to do in lines of JSON on stdin, answers on stdout.

    python benchmarks/_contender.py NAME --frames FRAMES.npy --model FILE_OR_FOLDER

Every contender takes a frame, uint8 BGR ``(H, W, 3)`` in memory, and returns its saliency map at frame size, uint8 ``(H, W)``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
"""ImageNet's, RGB."""
SIZE = 320


class Contender(ABC):
    """A way from a frame to a map.

    Attributes:
        version: Of what computes.
        seen: Input tensor ``(1, 3, 320, 320)`` and output map ``(320, 320)`` of the last frame, for comparing with torch.
    """

    version: str
    seen: tuple[np.ndarray, np.ndarray]

    @abstractmethod
    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Return the map at frame size, uint8 ``(H, W)``."""


class Rembg(Contender):
    """rembg with its own U²-Net session on our ONNX, mask only."""

    def __init__(self, model: Path) -> None:
        from importlib.metadata import version

        from rembg import new_session, remove

        self.version = f"rembg {version('rembg')}, onnxruntime {version('onnxruntime')}"
        self._remove, self._session = remove, new_session("u2net_custom", model_path=str(model))
        self._session.inner_session = _Recorded(self._session.inner_session, self)

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        import cv2
        from PIL import Image

        picture = Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        return np.asarray(self._remove(picture, session=self._session, only_mask=True))


class _Recorded:
    """An ONNX Runtime session that remembers what passed through it."""

    def __init__(self, session: Any, owner: Contender) -> None:
        self._session, self._owner = session, owner

    def run(self, names: Any, feeds: dict[str, np.ndarray], *rest: Any) -> Any:
        outputs = self._session.run(names, feeds, *rest)
        self._owner.seen = next(iter(feeds.values())), outputs[0][0, 0]
        return outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


class OnnxRuntime(Contender):
    """ONNX Runtime as it comes, with the shortest pre- and postprocessing that OpenCV offers."""

    def __init__(self, model: Path) -> None:
        import onnxruntime

        self.version = f"onnxruntime {onnxruntime.__version__}"
        self._session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        tensor = _preprocess(frame)
        saliency = self._session.run(None, {self._input: tensor})[0][0, 0]
        self.seen = tensor, saliency
        return _postprocess(saliency, frame)


class OpenCvDnn(Contender):
    """OpenCV's own inference."""

    def __init__(self, model: Path) -> None:
        import cv2

        self.version = f"opencv {cv2.__version__}"
        self._network = cv2.dnn.readNetFromONNX(str(model))

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        tensor = _preprocess(frame)
        self._network.setInput(tensor)
        saliency = self._network.forward()[0, 0]
        self.seen = tensor, saliency
        return _postprocess(saliency, frame)


class Torch(Contender):
    """torch eager as the authors' test script does it: its resize, its normalisation, one image at a time."""

    def __init__(self, model: Path) -> None:
        import torch

        from trainer import networks

        self.version = f"torch {torch.__version__}"
        self._torch, self._network = torch, networks.create("u2netp").eval()
        networks.load_weights(self._network, model)

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        from PIL import Image
        from skimage import transform

        image = frame[..., ::-1]
        small = transform.resize(image, (SIZE, SIZE), mode="constant")
        normal = np.zeros((SIZE, SIZE, 3))
        small = small / np.max(small)
        for channel in range(3):
            normal[..., channel] = (small[..., channel] - MEAN[channel]) / STD[channel]
        tensor = normal.transpose(2, 0, 1)[None].astype(np.float32)
        saliency = self.map_of(tensor)
        self.seen = tensor, saliency
        stretched = (saliency - saliency.min()) / (saliency.max() - saliency.min())
        drawn = Image.fromarray(stretched * 255).convert("RGB")
        return np.asarray(drawn.resize((frame.shape[1], frame.shape[0]), resample=Image.BILINEAR))[..., 0]

    def map_of(self, tensor: np.ndarray) -> np.ndarray:
        """Return torch's FP32 map ``(320, 320)`` of an input tensor ``(1, 3, 320, 320)``."""
        with self._torch.no_grad():
            outputs = self._network(self._torch.from_numpy(tensor))
            return self._torch.sigmoid(outputs[0])[0, 0].numpy()


class Edgesod(Contender):
    """An engine folder of ours."""

    def __init__(self, model: Path) -> None:
        import edgesod

        runtime = edgesod.Runtime(model)
        self.version = f"edgesod {edgesod.__version__}, {runtime.backend} {runtime.precision}"
        self._runtime = runtime

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        result = self._runtime(frame)
        self._result, self._frame = result, frame
        return result.levels

    @property
    def seen(self) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[override]
        from edgesod.processing.preprocess import preprocess

        return preprocess(self._frame, self._runtime.recipe), self._result.map_hw


CONTENDERS: dict[str, Callable[[Path], Contender]] = {
    "rembg": Rembg,
    "onnxruntime": OnnxRuntime,
    "torch": Torch,
    "opencv-dnn": OpenCvDnn,
    "edgesod-fp32": Edgesod,
    "edgesod-int8": Edgesod,
}


def main() -> None:
    """Load, say so, and do what is asked until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("--frames", type=Path, required=True, help="uint8 BGR (N, H, W, 3), .npy")
    parser.add_argument("--model", type=Path, required=True, help="ONNX, weights or engine folder")
    wanted = parser.parse_args()
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries that print do not disturb the answers
    frames = np.load(wanted.frames)
    contender = CONTENDERS[wanted.name](wanted.model)
    contender(frames[0])

    def answer(value: object) -> None:
        print(json.dumps(value), file=answers, flush=True)

    answer({"version": contender.version})
    for line in sys.stdin:
        job = json.loads(line)
        if job["do"] == "time":
            contender(frames[0])  # whoever ran before may have left the caches and a spinning thread or two
            answer([_ms(contender, frame) for frame in frames])
        elif job["do"] == "maps":
            maps, seen = [], []
            for frame in frames:
                maps.append(contender(frame).copy())
                seen.append(tuple(array.copy() for array in contender.seen))
            tensors, saliency = (np.stack(arrays) for arrays in zip(*seen, strict=True))
            np.savez(job["file"], maps=np.stack(maps), tensors=tensors, saliency=saliency)
            answer("saved")
        elif job["do"] == "reference":
            tensors = np.load(job["file"])["tensors"]
            np.save(job["to"], np.stack([contender.map_of(tensor) for tensor in tensors]))  # type: ignore[attr-defined]
            answer("saved")
        elif job["do"] == "memory":
            answer(_peak_mb())


def _ms(contender: Contender, frame: np.ndarray) -> float:
    began = time.perf_counter()
    contender(frame)
    return (time.perf_counter() - began) * 1e3


def _peak_mb() -> float:
    """Return the most memory this process ever had in RAM, in MB of 10⁶ bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e6  # type: ignore[index]


def _preprocess(frame: np.ndarray) -> np.ndarray:
    import cv2

    small = cv2.resize(frame, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return cv2.dnn.blobFromImage((small[..., ::-1] * np.float32(1 / 255) - MEAN) / STD)


def _postprocess(saliency: np.ndarray, frame: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.resize(cv2.convertScaleAbs(saliency, alpha=255), (frame.shape[1], frame.shape[0]))


if __name__ == "__main__":
    main()
