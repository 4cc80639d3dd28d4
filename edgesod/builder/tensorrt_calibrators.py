"""Calibrators for implicit INT8: TensorRT 8.5 to 10.x, and DLA. TensorRT 11 has none.

They hand TensorRT a finished cache, made from the same table as the Q/DQ files, or show it images and keep the cache that
it works out itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgesod.calibration.tensorrt_cache import Algorithm
from edgesod.errors import BuildError
from edgesod.recipe import RangeMethod
from edgesod.runtime import tensorrt_version as version
from edgesod.runtime.cuda import Buffer, Cuda

if TYPE_CHECKING:
    import tensorrt as trt


def algorithm_for(method: RangeMethod, *, on_dla: bool) -> Algorithm:
    """Return the calibrator that goes with a way to cut ranges; DLA knows the entropy one alone."""
    return "MinMaxCalibration" if method == "minmax" and not on_dla else "EntropyCalibration2"


class Calibration:
    """What a calibrator answers, apart from TensorRT's classes.

    TensorRT prints and forgets what is raised in a callback, so it is kept here and raised after the build.

    Args:
        cuda: The GPU, owned by the thread that builds: callbacks come from it.
        cache: A finished cache; then no image is asked for.
        images: Input tensors, float32 ``(1, 3, H, W)``.

    Attributes:
        cache: As given.
        written: The cache that TensorRT worked out from the images; ``None`` where it has not.
    """

    def __init__(self, cuda: Cuda, cache: bytes | None = None, images: Iterator[NDArray[np.float32]] | None = None) -> None:
        self.cache = cache
        self._cuda, self._images = cuda, images
        self._buffer: Buffer | None = None
        self._error: BaseException | None = None
        self.written: bytes | None = None

    def next_batch(self) -> list[int] | None:
        """Copy the next image to the GPU and return its address; ``None`` after the last one, and after an error."""
        if self._error is not None:
            return None
        try:
            return self._next_batch()
        except BaseException as error:
            self._error = error
            return None

    def write_cache(self, cache: memoryview) -> None:
        """Keep a copy: TensorRT takes the memory back after this call."""
        self.written = bytes(cache)

    def raise_error(self) -> None:
        """Raise what went wrong in a callback."""
        if self._error is not None:
            raise self._error

    def _next_batch(self) -> list[int] | None:
        if self.cache is not None:  # with a cache that it takes, TensorRT asks for no images
            raise BuildError("TensorRT does not take the calibration cache", hint="build with --calib DIR, a folder of images")
        tensor = next(self._images, None) if self._images is not None else None
        if tensor is None:
            return None
        if self._buffer is None:
            self._buffer = self._cuda.malloc(tensor.nbytes)
        stream = self._cuda.stream()
        self._cuda.h2d_async(self._buffer, np.ascontiguousarray(tensor), stream)
        self._cuda.synchronise(stream)
        self._cuda.free(stream)
        return [self._buffer.pointer]


def set_calibrator(config: trt.IBuilderConfig, calibration: Calibration, algorithm: Algorithm) -> None:
    """Have a build ask ``calibration``; the policy never asks TensorRT 11 for that, which has no calibrators."""
    if not version.TRT_GE_11:
        import tensorrt as trt

        class Answers:
            """The callbacks, the same for every algorithm; the bindings look them up by name."""

            def get_batch_size(self) -> int:
                return 1

            def get_batch(self, names: list[str]) -> list[int] | None:
                return calibration.next_batch()

            def read_calibration_cache(self) -> bytes | None:
                return calibration.cache

            def write_calibration_cache(self, cache: memoryview) -> None:
                calibration.write_cache(cache)

        class Entropy(Answers, trt.IInt8EntropyCalibrator2):
            def __init__(self) -> None:
                trt.IInt8EntropyCalibrator2.__init__(self)

        class MinMax(Answers, trt.IInt8MinMaxCalibrator):
            def __init__(self) -> None:
                trt.IInt8MinMaxCalibrator.__init__(self)

        config.int8_calibrator = Entropy() if algorithm == "EntropyCalibration2" else MinMax()
