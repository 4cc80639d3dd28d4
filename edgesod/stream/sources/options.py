"""How a source is opened and read: size and rate, turning, which part of a clip, time-outs, and how long it is waited for."""

from __future__ import annotations

import difflib
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgesod.errors import UsageError
from edgesod.recipe import problems

_MARGIN_S = 5.0


class SourceOptions(BaseModel):
    """What may be said about a source besides its name; whatever is not said is the camera's or the file's own.

    A person writes the same names without ``_s``: ``rate=30,flip=horizontal,start=2.5``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    width: int | None = Field(default=None, ge=1, le=16_384)
    """Pixels asked of a camera; it delivers the nearest size it has. With ``-``, the size that comes."""
    height: int | None = Field(default=None, ge=1, le=16_384)
    rate: float | None = Field(default=None, gt=0, le=1000)
    """Pictures a second asked of a camera; for pictures and ``-``, the rate their times are made from."""
    format: Literal["mjpeg", "yuyv", "uyvy", "nv12"] | None = None
    """What a V4L2 camera sends; USB 2 needs ``mjpeg`` for 720p at 30 fps."""
    rotate: Literal[0, 90, 180, 270] = 0
    """Degrees clockwise, before ``flip``."""
    flip: Literal["none", "horizontal", "vertical"] = "none"
    """``horizontal`` swaps left and right, ``vertical`` top and bottom."""
    loop: int = Field(default=0, ge=-1)
    """How many times a clip, folder or picture is played again: ``-1`` without end."""
    start_s: float = Field(default=0.0, ge=0, le=1e7, alias="start")
    """Seconds of a clip that are passed over."""
    end_s: float | None = Field(default=None, gt=0, le=1e7, alias="end")
    """Second of a clip at which it ends, counted from its own beginning."""
    transport: Literal["tcp", "udp"] = "tcp"
    """What carries RTSP: ``tcp`` loses no packet, ``udp`` keeps going on a poor network."""
    open_timeout_s: float = Field(default=10.0, gt=0, le=3600, alias="open_timeout")
    """How long a network source may take until its first picture can be decoded."""
    read_timeout_s: float = Field(default=5.0, gt=0, le=3600, alias="read_timeout")
    """How long a live source may deliver nothing before it counts as lost and is opened again."""
    reconnect_s: float = Field(default=60.0, ge=0, allow_inf_nan=True, alias="reconnect")
    """How long a lost source is tried again before it is given up: ``inf`` for ever, ``0`` not at all."""
    retry_s: float = Field(default=0.5, gt=0, le=60, alias="retry")
    """The pause before the first try; it doubles with each, up to 10 s, and is cut at random by up to a half."""

    @property
    def patience_s(self) -> float:
        """Seconds after which a source has delivered a frame or been found lost by these time-outs, with a margin.

        A stream may send what cannot be decoded for one time-out, then fall silent for another.
        """
        return max(self.open_timeout_s, 2 * self.read_timeout_s) + _MARGIN_S

    @model_validator(mode="after")
    def _fits_together(self) -> SourceOptions:
        if self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError(f"end={self.end_s:g} is not after start={self.start_s:g}")
        return self


NAMES = {(field.alias or name): name for name, field in SourceOptions.model_fields.items()}
"""What a person writes → the attribute's name."""

EVERY_SOURCE = frozenset(("flip", "rotate"))
LIVE = frozenset(("read_timeout_s", "reconnect_s", "retry_s"))
CLIP = frozenset(("loop", "start_s", "end_s"))


def parse_options(text: str, base: SourceOptions | None = None, *, separator: str = ",") -> SourceOptions:
    """Read options such as ``flip=horizontal,rotate=90,loop=3``; a URI's query is read with ``separator="&"``.

    Args:
        text: Names and values; empty for none.
        base: Options that stay as they are where ``text`` says nothing.
        separator: What stands between two options.

    Raises:
        UsageError: A name that is no option or stands twice, or a value that is out of range.
    """
    said: dict[str, str] = {}
    for part in text.split(separator) if text.strip() else []:
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name not in NAMES:
            close = difflib.get_close_matches(name, NAMES, n=1)
            hint = f"did you mean {close[0]}?" if close else f"one of: {', '.join(NAMES)}"
            raise UsageError(f"a source has no option {name!r}", hint=hint)
        if not equals or not value:
            raise UsageError(f"the option {name} has no value", hint=f"{name}=VALUE")
        if name in said:
            raise UsageError(f"the option {name} is given twice", hint="give it once")
        said[name] = value
    before = base.model_dump(exclude_unset=True) if base is not None else {}
    try:
        return SourceOptions.model_validate(before | {NAMES[name]: _number(name, value) for name, value in said.items()})
    except ValidationError as error:
        raise UsageError(
            f"the source's options are not right: {problems(error)}", hint=f"options: {', '.join(NAMES)}"
        ) from None


def check_options(options: SourceOptions, what: str, takes: frozenset[str]) -> None:
    """Make sure that what was said means something to a kind of source.

    Args:
        options: Those given.
        what: The kind of source, for the message.
        takes: The attributes that it heeds besides :data:`EVERY_SOURCE`.

    Raises:
        UsageError: Something was said that it would pass over in silence.
    """
    takes |= EVERY_SOURCE
    if unheeded := [name for name in SourceOptions.model_fields if name in options.model_fields_set - takes]:
        short = {name: alias for alias, name in NAMES.items()}
        message = f"{what} does not take {', '.join(short[name] for name in unheeded)}"
        raise UsageError(message, hint=f"it takes: {', '.join(alias for alias, name in NAMES.items() if name in takes)}")


def _number(name: str, value: str) -> str | int:
    """Return ``rotate``'s value as the number it is: a literal is not read from text."""
    return int(value) if name == "rotate" and value.isdecimal() else value
