"""Where frames come from, where pictures go, and the pipeline between them."""

from __future__ import annotations

from edgesod.stream.base import Sink, Source
from edgesod.stream.pipeline import PipelineReport, run_pipeline, stream_results
from edgesod.stream.sinks import open_sink
from edgesod.stream.sinks.callback import CallbackSink
from edgesod.stream.sinks.sheet import SheetSink
from edgesod.stream.sources import open_source
from edgesod.stream.statistics import LiveStatistics

__all__ = [
    "CallbackSink",
    "LiveStatistics",
    "PipelineReport",
    "SheetSink",
    "Sink",
    "Source",
    "open_sink",
    "open_source",
    "run_pipeline",
    "stream_results",
]
