"""The grammar that names sources and sinks (jetson-utils' own), and the form of a name that is safe to print."""

from __future__ import annotations

import re

from edgesod.errors import UsageError

SOURCES = (
    "0 · camera:0 · v4l2:///dev/video0 · csi://0 · rtsp://… · http://… · clip.mp4 · picture.jpg · folder/ · img_%04d.png · "
    "- (raw BGR) · synthetic://"
)
"""What :func:`edgesod.open_source` takes, for messages."""

SINKS = (
    "out.mp4 (.mov, .mkv) · out.png (.jpg, .webp, .bmp, .tiff) · folder/ · out_%04d.png · - (raw) · out.jsonl (boxes) · ring://NAME · "
    "rtsp://HOST/NAME · display://0 · null"
)
"""What :func:`edgesod.open_sink` takes, for messages."""

VIDEO_SUFFIXES = frozenset((".mp4", ".m4v", ".mov", ".mkv"))
"""Containers a sink can write; a source opens whatever FFmpeg reads."""

NETWORK = frozenset(("rtsp", "rtsps", "http", "https"))
"""Schemes of sources elsewhere; their queries belong to the server."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_LOGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:///*|[A-Za-z][A-Za-z0-9+.-]+:/*).*@", re.DOTALL)
_NUMBER = re.compile(r"%0?(\d*)[di]")
_SECRET = re.compile(r"(?<![a-z])(?:user(?:name)?|pass(?:word|wd)?|pwd|token|key|secret|auth)[=:][^/]*", re.IGNORECASE)


def scheme_of(uri: str) -> str:
    """Return the scheme in lower case, or nothing for a plain path."""
    found = _SCHEME.match(uri)
    return found[1].lower() if found else ""


def redacted(uri: str) -> str:
    """Return ``uri`` without user, password, query and fragment.

    Everything up to the last ``@`` goes, because a password may hold any sign; the query goes, because cameras take
    tokens there; and what follows ``user=`` or ``password=`` within a path, where cheap cameras want their login. A slash
    too few changes nothing.
    """
    if not (scheme_of(uri) or _LOGIN.match(uri)):
        return uri
    shown = _LOGIN.sub(r"\1***@", uri)
    return re.sub(r"[?#].*", "?…", _SECRET.sub("***", shown), flags=re.DOTALL)


def check_slashes(uri: str) -> None:
    """Make sure that what begins as a network's URI is one.

    Raises:
        UsageError: A slash is missing, as in ``rtsp:/host/name``.
    """
    scheme, colon, rest = uri.partition(":")
    if colon and scheme.lower() in NETWORK and not rest.startswith("//"):
        raise UsageError(
            f"{redacted(uri)} lacks a slash", hint=f"{scheme.lower()}://{redacted(uri)[len(scheme) + 1 :].lstrip('/')}"
        )


def split_query(uri: str) -> tuple[str, str]:
    """Return what stands before and after the last ``?``; the second part is empty where there is none."""
    before, mark, query = uri.rpartition("?")
    return (before, query) if mark else (uri, "")


def is_sequence(name: str) -> bool:
    """Tell whether a file name holds exactly one number pattern such as ``%04d`` or ``%i``."""
    return len(_NUMBER.findall(name)) == 1 and name.count("%") == 1


def sequence_name(pattern: str, number: int) -> str:
    """Return the file name number ``number`` of a pattern such as ``img_%04d.png``."""
    return _NUMBER.sub(lambda found: str(number).zfill(int(found[1] or 0)), pattern)


def sequence_regex(pattern: str) -> re.Pattern[str]:
    """Return what matches the file names of a pattern, its one group being the number."""
    found = _NUMBER.search(pattern)
    if found is None:
        raise ValueError(f"{pattern!r} holds no number pattern such as %04d")
    digits = rf"(\d{{{int(found[1] or 1)},}})"
    return re.compile(re.escape(pattern[: found.start()]) + digits + re.escape(pattern[found.end() :]))
