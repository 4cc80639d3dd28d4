"""Where frames come from: open a source by the name a person types."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path

from edgesod.errors import InputError, UsageError
from edgesod.processing.pictures import IMAGE_SUFFIXES
from edgesod.stream.base import Source
from edgesod.stream.sources.camera import CameraSource, camera_number
from edgesod.stream.sources.options import SourceOptions, parse_options
from edgesod.stream.sources.pictures import PicturesSource
from edgesod.stream.sources.raw import RawSource
from edgesod.stream.sources.reconnect import ReconnectingSource
from edgesod.stream.sources.synthetic import SyntheticSource
from edgesod.stream.sources.transform import LoopedSource, turned
from edgesod.stream.uri import NETWORK, SOURCES, check_slashes, is_sequence, redacted, scheme_of, split_query

Opener = Callable[[], Source]


def open_source(uri: str | os.PathLike[str], options: SourceOptions | None = None) -> Source:
    """Open a camera, video, stream, picture or folder of pictures.

    Args:
        uri: ``0``, ``camera:0`` or ``v4l2:///dev/video0`` for a camera, ``csi://0`` for one that GStreamer reaches;
            ``rtsp://…`` or ``http://…``; a video file, a picture, a folder of pictures (sorted by name) or a sequence
            such as ``img_%04d.png``; ``file://`` may stand before a path; ``-`` for raw BGR on standard input;
            ``synthetic://`` for a moving object. A path object is always a path. Options may follow as a query, as in
            ``v4l2:///dev/video0?width=1280&height=720``; the query of a network's URI belongs to the server.
        options: How it is opened and read; what a query says comes first.

    Returns:
        The source, open; use it in a ``with`` statement. Cameras and streams come back after a loss
        (:class:`~edgesod.stream.sources.reconnect.ReconnectingSource`).

    Raises:
        InputError: It is missing or cannot be read.
        UsageError: A scheme that is not one of these, or options that do not fit it.
        BackendError: ``csi://`` where GStreamer is not installed.
    """
    options = options or SourceOptions()
    if isinstance(uri, str):
        open_it, options = _opener_of_uri(uri, options)
    else:
        open_it = _opener_of_path(Path(uri), options)
    opened = open_it()
    source = turned(opened, options)
    if opened.is_live and not isinstance(opened, SyntheticSource):
        return ReconnectingSource(source, lambda: turned(open_it(), options), options)
    return LoopedSource(source, lambda: turned(open_it(), options), options.loop) if options.loop else source


def _opener_of_uri(uri: str, options: SourceOptions) -> tuple[Opener, SourceOptions]:
    """Return what opens a URI, and the options with its query's; opening again gives the same source anew."""
    check_slashes(uri)
    scheme = scheme_of(uri)
    if scheme in NETWORK:
        from edgesod.stream.sources.video import VideoSource

        return lambda: VideoSource(uri, options), options
    if uri.startswith(("camera:", "-?")) or scheme in ("v4l2", "csi", "synthetic"):
        uri, options = _with_query(uri, options)
    number = camera_number(uri)
    if number is not None:
        return lambda: CameraSource(number, options), options
    if uri == "-":
        return lambda: RawSource(options), options
    if scheme == "csi":
        from edgesod.stream.sources.gstreamer import open_csi

        return lambda: open_csi(uri, options), options
    if scheme == "synthetic":
        if uri != "synthetic://":
            raise UsageError("synthetic:// has no name, only options", hint="synthetic://?width=640&height=480&rate=30")
        return lambda: SyntheticSource(options), options
    if scheme not in ("", "file"):
        raise UsageError(f"{redacted(uri)}: no source has the scheme {scheme}://", hint=f"one of: {SOURCES}")
    if not os.path.exists(uri[len("file://") :] if scheme else uri) and (scheme or "=" in split_query(uri)[1]):
        uri, options = _with_query(uri, options)
    path = uri[len("file://") :] if scheme else uri
    if not path:
        raise UsageError("the source is empty", hint=f"one of: {SOURCES}")
    return _opener_of_path(Path(path), options), options


def _with_query(uri: str, options: SourceOptions) -> tuple[str, SourceOptions]:
    uri, query = split_query(uri)
    return uri, parse_options(query, options, separator="&")


def _opener_of_path(path: Path, options: SourceOptions) -> Opener:
    try:
        if path.is_dir():
            return lambda: PicturesSource.from_folder(path, options)
        if not path.exists():
            if is_sequence(path.name):
                return lambda: PicturesSource.from_sequence(path, options)
            raise InputError(f"{redacted(str(path))} does not exist", hint=_nearby(path))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return lambda: PicturesSource([path], str(path), options)
    from edgesod.stream.sources.video import VideoSource

    return lambda: VideoSource(path, options)


def _nearby(path: Path) -> str:
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    missing = path.relative_to(folder).parts[0] if path != folder else path.name
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    if close := difflib.get_close_matches(missing, names, n=3):
        return f"did you mean {' or '.join(str(folder / name) for name in close)}?"
    listed = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return f"{folder} holds: {listed}" if names else f"{folder} is empty"
