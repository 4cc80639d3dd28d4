"""Pictures into a stream of H.264, through PyAV; what files and servers get is made here."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import cv2
import numpy as np
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from edgesod.threads import usable_cpus

DEFAULT_FPS = 25.0
MAX_LENGTH = 16_384
"""The most pixels that H.264 has in a row or a column."""

_ENCODER = {"preset": "veryfast", "bf": "0", "x264-params": "subme=1:me=dia:partitions=i4x4,i8x8:no-cabac=1"}
"""``veryfast`` with the cheapest search, motion of whole macroblocks alone, and the cheaper entropy code. The last two take another
seventh to a quarter off the time for about a tenth more bytes and the same PSNR and SSIM; ``superfast`` takes as long for nearly
twice the bytes."""

_TIME_BASE = Fraction(1, 90_000)
"""MPEG's own clock: frames of 24, 25, 30 and 30000/1001 per second, and milliseconds, fall on whole ticks."""


class H264Stream:
    """An H.264 stream of an output container, ``yuv420p`` in BT.709, that any player takes.

    A picture whose time does not advance comes ``1 / fps`` after the one before. An odd width or height is made even by
    repeating the last column or row; a picture of another size is fitted in, on black.

    Args:
        container: Open for writing, with nothing written yet.
        size_hw: Height and width in pixels, neither above :data:`MAX_LENGTH`.
        fps: Nominal pictures per second.
        options: x264's own, beside the preset and no B-frames: with a variable frame rate their reordering makes a file's
            stated length end before its last frames, and live it costs frames of delay.
        key_every_s: Seconds of the pictures' own time from which a key frame is due; ``None`` leaves them to x264.
    """

    def __init__(
        self,
        container: OutputContainer,
        size_hw: tuple[int, int],
        fps: float,
        options: Mapping[str, str],
        *,
        key_every_s: float | None = None,
    ) -> None:
        self._size_hw = size_hw
        self._fps = Fraction(fps)
        self._key_every = None if key_every_s is None else round(key_every_s / _TIME_BASE)
        self._next_key = 0
        self._ticks = -1
        self._reformatter = VideoReformatter()
        self._stream = _add_stream(container, size_hw, fps, {**_ENCODER, **options})

    def encode(self, image: NDArray[np.uint8], time_s: float) -> list[Packet[VideoStream]]:
        """Return the packets that one picture completes.

        Args:
            image: uint8 BGR ``(H, W, 3)``, contiguous.
            time_s: When it is shown, in seconds from the stream's beginning.
        """
        picture = VideoFrame.from_numpy_buffer(fitted(image, self._size_hw), format="bgr24")  # no copy
        picture = self._reformatter.reformat(
            picture, format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, threads=1
        )
        ticks = round(time_s / _TIME_BASE)
        if ticks <= self._ticks:
            ticks = self._ticks + round(1 / (_TIME_BASE * self._fps))
        picture.pts, picture.time_base = ticks, _TIME_BASE
        self._ticks = ticks
        if self._key_every is not None and ticks >= self._next_key:
            picture.pict_type = PictureType.I
            self._next_key = ticks + self._key_every
        return self._stream.encode(picture)

    def finish(self) -> list[Packet[VideoStream]]:
        """Return what the encoder still holds."""
        return self._stream.encode(None)


def fitted(image: NDArray[np.uint8], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a BGR picture at ``size_hw``, its shape kept, on black; then an odd height or width made even."""
    height, width = size_hw
    if image.shape[:2] != (height, width):
        scale = min(height / image.shape[0], width / image.shape[1])
        inner_hw = max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = cv2.resize(image, inner_hw[::-1], interpolation=interpolation)
        top, left = (height - inner_hw[0]) // 2, (width - inner_hw[1]) // 2
        image = np.zeros((height, width, 3), np.uint8)
        image[top : top + inner_hw[0], left : left + inner_hw[1]] = small
    if height % 2 or width % 2:
        image = np.asarray(cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE), np.uint8)
    return image


def _add_stream(container: OutputContainer, size_hw: tuple[int, int], fps: float, options: dict[str, str]) -> VideoStream:
    stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(100_000), options=options)
    stream.height, stream.width = (length + length % 2 for length in size_hw)
    stream.pix_fmt = "yuv420p"
    stream.time_base = _TIME_BASE
    context = stream.codec_context
    context.thread_count = _threads()
    context.time_base = _TIME_BASE
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    return stream


def _threads() -> int:
    """Half of the cores: whole pipelines run here, and an encoder that takes every core takes them from the network."""
    return max(1, usable_cpus() // 2)
