"""Where frames come from, where pictures go, and the pipeline between them."""

from __future__ import annotations

from edgesod.stream.base import Sink, Source
from edgesod.stream.capture import Capture
from edgesod.stream.pipeline import PipelineReport, run_pipeline
from edgesod.stream.sheet_sink import SheetSink
from edgesod.stream.sinks import open_sink
from edgesod.stream.sources import open_source

__all__ = ["Capture", "PipelineReport", "SheetSink", "Sink", "Source", "open_sink", "open_source", "run_pipeline"]
