"""Where an engine's time goes, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from edgesod.errors import DeviceError
from edgesod.runtime.cuda import Cuda, Stream
from edgesod.runtime.tensorrt_engine import Engine

if TYPE_CHECKING:
    import tensorrt as trt


@dataclass(frozen=True)
class LayerTime:
    """How long a layer takes.

    Attributes:
        name: TensorRT's, which names the ONNX nodes that it fused.
        ms: Median of its times in milliseconds.
        share: Of all layers' medians, in [0, 1].
    """

    name: str
    ms: float
    share: float


def time_layers(engine: Engine, addresses: Mapping[str, int], cuda: Cuda, stream: Stream, runs: int) -> list[LayerTime]:
    """Time every layer in an execution context of its own; the GPU is bound to the calling thread.

    Args:
        engine: The engine.
        addresses: Where each of its inputs and outputs lies.
        cuda: The GPU.
        stream: What to run in.
        runs: How often; one more before warms it up.

    Returns:
        The layers in the order in which they run.

    Raises:
        DeviceError: TensorRT cannot run the engine.
    """
    times: dict[str, list[float]] = {}
    context = engine.context()
    try:
        context.profiler = _profiler(times)
        for name, address in addresses.items():
            context.set_tensor_address(name, address)
        for run in range(runs + 1):
            if not context.execute_async_v3(stream.handle):
                raise DeviceError(f"TensorRT cannot run the engine: {engine.messages.last()}")
            cuda.synchronise(stream)
            if run == 0:
                times.clear()
    finally:
        del context  # or a traceback would keep it alive
    medians = {name: median(found) for name, found in times.items()}
    total = sum(medians.values()) or 1.0
    return [LayerTime(name, ms, ms / total) for name, ms in medians.items()]


def _profiler(times: dict[str, list[float]]) -> trt.IProfiler:
    import tensorrt as trt

    class Profiler(trt.IProfiler):
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times.setdefault(layer_name, []).append(ms)

    return Profiler()
