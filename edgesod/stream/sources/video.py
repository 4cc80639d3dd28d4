"""Video files and network streams, through PyAV."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import av
import av.error
import cv2
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from edgesod.errors import InputError, SourceLost, UsageError
from edgesod.stream.sources.backlog import Advice, Backlog
from edgesod.stream.sources.guarded import GuardedSource
from edgesod.stream.sources.options import CLIP, LIVE, SourceOptions, check_options
from edgesod.stream.uri import NETWORK, redacted, scheme_of
from edgesod.types import Frame

_FASTEST_HZ = 1000
"""A rate above this is a clock's, which FFmpeg falls back on where a stream does not tell its rate."""

_TURNS = {
    90: cv2.ROTATE_90_COUNTERCLOCKWISE,
    -90: cv2.ROTATE_90_CLOCKWISE,
    180: cv2.ROTATE_180,
    -180: cv2.ROTATE_180,
}
"""What undoes a display matrix; PyAV gives its angle in degrees, counter-clockwise."""


class VideoSource(GuardedSource):
    """A video file, or a stream behind ``rtsp://`` or ``http://``.

    Times are those in the file, so a variable frame rate survives; they count from the first frame. Frames are turned
    as the file's display matrix asks. A file that is damaged part-way yields the whole frames before the damage.

    A stream is live under ``rtsp://``, and under ``http://`` when it does not say how long it is; live, an end is a loss, and so
    is one that sends nothing that can be decoded for as long as its time-outs say.
    Where reading falls a second behind the camera, pictures are left out (:mod:`edgesod.stream.sources.backlog`).

    Args:
        uri: A path, or a URL, whose credentials show up nowhere.
        options: ``start_s`` and ``end_s`` of a clip; time-outs and ``transport`` of a stream.

    Raises:
        InputError: Nothing in it can be decoded, or nobody answers at the URL.
        UsageError: An option that means nothing to such a video.
    """

    def __init__(self, uri: str | Path, options: SourceOptions | None = None) -> None:
        super().__init__()
        self._options = options or SourceOptions()
        scheme = scheme_of(uri) if isinstance(uri, str) else ""
        self.name = redacted(str(uri))
        self._is_rtsp = scheme in ("rtsp", "rtsps")
        self._backlog = Backlog() if self._is_rtsp else None
        if scheme in NETWORK:
            takes = LIVE | {"open_timeout_s"} | ({"transport"} if self._is_rtsp else CLIP)
            check_options(self._options, f"{scheme}://", frozenset(takes))
            self.patience_s = self._options.patience_s
            self._container = self._open_network(str(uri))
        else:
            check_options(self._options, "a video file", CLIP)
            self._container = self._open(f"file:{uri}", None, {})
        try:
            self._describe(scheme)
            frames = self._decode()
            # A file shows at once whether it can be decoded, and which way up it is; a camera's frame would only grow old.
            self._frames = frames if self.is_live else chain((next(frames),), frames)
        except StopIteration:
            self.close()
            where = f" from second {self._options.start_s:g} on" if self._options.start_s else ""
            raise InputError(f"{self.name} holds no frame that can be decoded{where}") from None
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Frame]:
        first_s: float | None = None
        for index, decoded in enumerate(self._frames):
            time_s = self._time_of(decoded, index)
            first_s = time_s if first_s is None else first_s
            image = _bgr(decoded)
            yield Frame(image, index, time_s - first_s, self.name, time.perf_counter())

    def _open_network(self, url: str) -> InputContainer:
        # FFmpeg would study a stream for five seconds; one is enough to find the size. Not `nobuffer`: it throws away what
        # was studied, the first key frame included, and there is no picture until the next.
        options = {"analyzeduration": "1000000"}
        if self._is_rtsp:
            options |= {"rtsp_transport": self._options.transport, "fpsprobesize": "2"}
        return self._open(url, (self._options.open_timeout_s, self._options.read_timeout_s), options)

    def _open(self, url: str, timeouts_s: tuple[float, float] | None, options: dict[str, str]) -> InputContainer:
        begun_s = time.perf_counter()
        container, reason = None, ""
        try:
            container = av.open(url, timeout=timeouts_s, options=options, metadata_errors="replace")
        except (av.error.FFmpegError, OSError) as error:
            reason = _reason(error)
        if timeouts_s is not None and time.perf_counter() - begun_s >= timeouts_s[0]:
            # A server that falls silent while FFmpeg studies its stream leaves a container that knows nothing.
            if container is not None:
                container.close()
            container, reason = None, "it does not answer in time"
        if container is not None:
            return container
        # Raised out here so that nothing hangs on to FFmpeg's own error, which carries the URL, password included.
        hint = (
            "see that address, port and login are right, and that it can be reached from this machine"
            if timeouts_s is not None
            else "it may be cut off or of another kind: copy it again, or see what `ffprobe` says of it"
        )
        raise InputError(f"{self.name} cannot be opened as a video: {reason}", hint=hint)

    def _describe(self, scheme: str) -> None:
        if not self._container.streams.video or self._container.streams.video[0].codec_context is None:
            raise InputError(f"{self.name} holds no video that can be decoded")
        stream = self._container.streams.video[0]
        duration = self._container.duration
        self.is_live = self._is_rtsp or (scheme in NETWORK and duration is None)
        rates = (float(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate)
        self.fps = next((rate for rate in rates if rate <= _FASTEST_HZ), None)
        if stream.width and stream.height:
            self.size_hw = (stream.height, stream.width)
        if self.is_live:
            if unheeded := self._options.model_fields_set & CLIP:
                raise UsageError(f"{self.name} is live: it has no {' and no '.join(sorted(unheeded))}", hint="leave it out")
            return
        stream.thread_type = "AUTO"  # decode ahead on several cores; live, every frame decoded ahead is a frame late
        start_s, end_s = self._options.start_s, self._options.end_s
        seconds = duration / av.time_base if duration else 0.0
        if start_s or end_s is not None:
            self.num_frames = round(max(0.0, min(end_s or seconds, seconds) - start_s) * (self.fps or 0.0)) or None
        else:
            self.num_frames = stream.frames or round(seconds * (self.fps or 0.0)) or None
        if start_s:
            self._container.seek(round((start_s * av.time_base) + (self._container.start_time or 0)))

    def _time_of(self, frame: VideoFrame, index: int) -> float:
        """Return a frame's time in seconds since the stream's own beginning; of frame ``index`` where it says none."""
        stream = self._container.streams.video[0]
        # Not `frame.time`: frames that were held back at a damage do not know their time base.
        if frame.pts is None:
            return index / (self.fps or 25.0)
        return (frame.pts - (stream.start_time or 0)) * float(stream.time_base or 0)

    def _decode(self) -> Iterator[VideoFrame]:
        """Yield the frames of the part that was asked for, in order."""
        packets = self._container.demux(self._container.streams.video[0])
        num_decoded, tolerance_s = 0, 0.25 / (self.fps or 25.0)
        last_s, limit_s = time.perf_counter(), self._options.open_timeout_s
        while True:
            frames, damage, is_end = self._step(packets)
            for frame in frames:
                if frame.is_corrupt and not self.is_live:
                    # Before the first whole frame it is a clip cut without a key frame; later the decoder made it up.
                    if num_decoded == 0:
                        continue
                    damage = damage or "a picture is incomplete"
                    break
                if not self.is_live:
                    time_s = self._time_of(frame, num_decoded)
                    if time_s < self._options.start_s - tolerance_s:
                        continue
                    if self._options.end_s is not None and time_s > self._options.end_s - tolerance_s:
                        return
                turned = frame.rotation in (90, -90)
                self.size_hw = (frame.width, frame.height) if turned else (frame.height, frame.width)
                yield frame
                num_decoded += 1
                last_s, limit_s = time.perf_counter(), self._options.read_timeout_s
            if self.is_live and not is_end and time.perf_counter() - last_s > limit_s:
                damage, is_end = f"no picture could be decoded for {limit_s:g} s", True
            if damage and self.is_live and not is_end:
                continue
            if damage and self.is_live:
                raise SourceLost(
                    f"{self.name} went away after {num_decoded} frames: {damage}", hint="start again once it is back"
                )
            if damage:
                total = f" of {self.num_frames}" if self.num_frames else ""
                raise InputError(
                    f"{self.name} is damaged: {num_decoded}{total} frames can be read, then {damage}",
                    hint=f"--max-frames {num_decoded} keeps those" if num_decoded else "copy it again",
                )
            if is_end:
                return

    def _step(self, packets: Iterator[av.Packet[VideoStream]]) -> tuple[list[VideoFrame], str, bool]:
        """Decode one packet: the frames it completes, what is wrong if anything, and whether nothing can follow."""
        with self._turn() as is_open:
            if not is_open:
                return [], "", True
            try:
                packet = next(packets)
            except StopIteration:
                has_length = self._container.duration is not None
                return [], "" if has_length or not self.is_live else "the stream ended", True
            except (av.error.FFmpegError, OSError) as error:
                return self._held_back(), _reason(error), True
            # A packet cut short decodes into a smeared picture, or into nothing without a word, by thread type.
            if packet.is_corrupt:
                return self._held_back(), "a packet is cut short", False
            advice = self._advice(packet)
            if advice is Advice.SKIP:
                return [], "", False
            try:
                frames = packet.decode()
            except av.error.FFmpegError as error:
                return self._held_back(), _reason(error), False
            return frames if advice is Advice.SHOW else [], "", False

    def _advice(self, packet: av.Packet[VideoStream]) -> Advice:
        if self._backlog is None or packet.pts is None or packet.time_base is None:
            return Advice.SHOW
        return self._backlog.advice(packet.pts * float(packet.time_base), time.perf_counter(), packet.is_keyframe)

    def _release(self) -> None:
        self._container.close()

    def _held_back(self) -> list[VideoFrame]:
        """Return the whole frames that the decoder still holds before a damage; none when live, which goes on."""
        if self.is_live:
            return []
        try:
            return self._container.streams.video[0].codec_context.decode(None)
        except (av.error.FFmpegError, EOFError):
            return []


def _bgr(frame: VideoFrame) -> NDArray[np.uint8]:
    image = np.asarray(frame.to_ndarray(format="bgr24", threads=1), np.uint8)  # more would be started anew for every frame
    turn = _TURNS.get(frame.rotation)
    return image if turn is None else np.asarray(cv2.rotate(image, turn), np.uint8)


def _reason(error: Exception) -> str:
    if isinstance(error, av.error.ExitError):
        return "it does not answer in time"
    return str(getattr(error, "strerror", None) or type(error).__name__)
