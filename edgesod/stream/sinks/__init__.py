"""Where pictures go: open a sink by the name a person types."""

from __future__ import annotations

import os
from pathlib import Path

from edgesod.errors import UsageError
from edgesod.processing.pictures import IMAGE_SUFFIXES
from edgesod.stream.base import Sink
from edgesod.stream.sinks.null import NullSink
from edgesod.stream.sinks.pictures import FolderSink, PictureSink
from edgesod.stream.uri import SINKS, VIDEO_SUFFIXES, check_slashes, redacted, scheme_of


def open_sink(
    target: str | os.PathLike[str],
    *,
    fps: float | None = None,
    size_hw: tuple[int, int] | None = None,
    is_live: bool = False,
) -> Sink:
    """Open a video file, picture, folder or numbered sequence for writing, or something that is no file.

    Args:
        target: The suffix decides; without one it is a folder. ``file://`` may stand before a path. ``-`` is raw pictures on
            standard output, ``.jsonl`` where the subject is, ``ring://NAME`` masks in shared memory, ``rtsp://HOST/NAME`` a
            stream of a server's, ``display://0`` a window, ``null`` keeps nothing.
        fps: Nominal pictures per second of a video; ``None`` means 25. Only pictures without times of their own are paced
            by it, the others keep theirs.
        size_hw: Height and width of a video in pixels; ``None`` takes the first picture's.
        is_live: Whether a video or lines are of pictures that do not come again
            (:class:`~edgesod.stream.sinks.video.VideoSink`).

    Returns:
        The sink; use it in a ``with`` statement.

    Raises:
        OutputError: The place cannot be written, or no server answers.
        UsageError: A scheme or suffix that is not one of these.
        BackendError: A window where there is no screen.
    """
    target = os.fspath(target)
    check_slashes(target)
    scheme = scheme_of(target)
    if target in ("null", "null://"):
        return NullSink()
    if target == "-":
        from edgesod.stream.sinks.pipe import PipeSink

        return PipeSink()
    if scheme == "ring":
        from edgesod.stream.sinks.ring import RingSink

        return RingSink(target.removeprefix("ring://"))
    if target == "display://0":
        from edgesod.stream.sinks.window import WindowSink

        return WindowSink()
    if scheme == "rtsp":
        from edgesod.stream.sinks.rtsp import RtspSink

        return RtspSink(target, fps=fps)
    if scheme not in ("", "file") or target in ("", "file://"):
        raise UsageError(f"{redacted(target) or 'nothing'} is not a sink", hint=f"one of: {SINKS}")
    path = Path(target.removeprefix("file://"))
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES and not path.is_dir():
        from edgesod.stream.sinks.video import VideoSink

        return VideoSink(path, fps=fps, size_hw=size_hw, is_live=is_live)
    if suffix in IMAGE_SUFFIXES and not path.is_dir():
        return PictureSink(path)
    if suffix == ".jsonl" and not path.is_dir():
        from edgesod.stream.sinks.subjects import SubjectsSink

        return SubjectsSink(path, is_live=is_live)
    if path.is_dir() or not suffix or target.endswith(("/", os.sep)):
        return FolderSink(path)
    raise UsageError(f"{redacted(str(path))}: the suffix {suffix} says neither video nor picture", hint=f"one of: {SINKS}")
