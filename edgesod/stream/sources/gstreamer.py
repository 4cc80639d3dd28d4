"""CSI cameras, which only GStreamer reaches: through OpenCV where it was built with it, else through a pipe.

A pipeline is made of constants and checked numbers alone; no text that a person typed becomes part of one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from edgesod.errors import BackendError, InputError, SourceLost, UsageError
from edgesod.stream.base import Source
from edgesod.stream.sources.camera import CameraSource
from edgesod.stream.sources.guarded import GuardedSource
from edgesod.stream.sources.options import LIVE, SourceOptions, check_options
from edgesod.stream.sources.raw import read_picture_from
from edgesod.types import Frame

CSI = frozenset(("width", "height", "rate", "open_timeout_s")) | LIVE
"""The options a CSI camera takes."""

_SIZE_WH = (1280, 720)
_RATE = 30.0
_HINT = "on a Jetson: sudo systemctl restart nvargus-daemon; see docs/jetson.md"
_TO_BGR = ["!", "videoconvert", "!", "video/x-raw,format=BGR", "!", "queue", "leaky=downstream", "max-size-buffers=1"]


def open_csi(uri: str, options: SourceOptions) -> Source:
    """Open the camera that ``csi://N`` names.

    Raises:
        UsageError: ``N`` is not a number, or an option means nothing to such a camera.
        InputError: The camera does not deliver.
        BackendError: GStreamer is not installed.
    """
    found = re.fullmatch(r"csi://(\d{1,2})", uri)
    if found is None:
        raise UsageError("a CSI camera is named by its number alone", hint="csi://0, or csi://0?width=1280&height=720&rate=30")
    name = f"csi://{int(found[1])}"
    check_options(options, "a CSI camera", CSI)
    options = _with_defaults(options)
    elements = [*_camera_elements(int(found[1]), options), *_TO_BGR]
    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        pipeline = " ".join([*elements, "!", "appsink", "drop=true", "max-buffers=1", "sync=false"])
        return CameraSource(pipeline, options, name=name, hint=_HINT)
    return PipeSource(elements, options, name=name)


class PipeSource(GuardedSource):
    """BGR pictures, live, that ``gst-launch-1.0`` writes to a pipe.

    Args:
        elements: The pipeline as an argument list, up to its sink; it ends in BGR.
        options: ``width``, ``height``, ``rate`` and the time-outs.
        name: What messages call it.

    Raises:
        BackendError: GStreamer is not installed.
        InputError: No picture comes within the time-out for opening.
    """

    is_live = True

    def __init__(self, elements: Sequence[str], options: SourceOptions, *, name: str) -> None:
        super().__init__()
        if options.width is None or options.height is None:
            raise UsageError("a pipe's pictures need a size")
        self.name = name
        self.size_hw = options.height, options.width
        self.fps = options.rate
        self._options = options
        self._closing = threading.Event()
        tool = _tool("gst-launch-1.0")
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the source)
        # Not standard output: NVIDIA's element for CSI cameras prints there.
        self._pictures, theirs = os.pipe()
        try:
            self._process = subprocess.Popen(
                [tool, "-q", *elements, "!", "fdsink", f"fd={theirs:d}", "sync=false"],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                pass_fds=(theirs,),
                start_new_session=True,  # Ctrl-C is for us, and we end it
            )
        except BaseException:
            os.close(self._pictures)
            self._said.close()
            raise
        finally:
            os.close(theirs)
        try:
            self._first = self._read(options.open_timeout_s)
        except SourceLost as error:
            self.close()
            raise InputError(str(error), hint=_HINT) from None
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Frame]:
        image: NDArray[np.uint8] | None = self._first
        start_s, index = time.perf_counter(), 0
        while image is not None:
            now_s = time.perf_counter()
            yield Frame(image, index, now_s - start_s, self.name, now_s)
            index += 1
            image = self._read(self._options.read_timeout_s)

    def close(self) -> None:
        self._closing.set()
        super().close()

    def _read(self, timeout_s: float) -> NDArray[np.uint8] | None:
        assert self.size_hw is not None
        with self._turn() as is_open:
            if not is_open:
                return None
            try:
                stride = -(-3 * self.size_hw[1] // 4) * 4  # GStreamer begins every row at a multiple of four bytes
                image = read_picture_from(
                    self._pictures, self.size_hw, self.name, self._closing, row_bytes=stride, timeout_s=timeout_s
                )
            except (TimeoutError, InputError) as error:
                raise SourceLost(f"{error}{self._complaint()}", hint=_HINT) from None
            if image is None and not self._closing.is_set():
                raise SourceLost(f"{self.name} ended{self._complaint()}", hint=_HINT)
            return image

    def _complaint(self) -> str:
        """Return what GStreamer said last, if anything."""
        self._said.seek(0)
        lines = [line.strip() for line in self._said.read().decode(errors="replace").splitlines() if "ERROR" in line]
        return f": {lines[0][:200]}" if lines else ""

    def _release(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._pictures)
        self._said.close()


def _with_defaults(options: SourceOptions) -> SourceOptions:
    wanted = {"width": options.width or _SIZE_WH[0], "height": options.height or _SIZE_WH[1], "rate": options.rate or _RATE}
    return options.model_copy(update=wanted)


def _camera_elements(number: int, options: SourceOptions) -> list[str]:
    """Return what captures camera ``number``: a Jetson's element where it is installed, else libcamera's."""
    rate = Fraction(options.rate or _RATE).limit_denominator(1001)
    size = f"width={options.width:d},height={options.height:d},framerate={rate.numerator:d}/{rate.denominator:d}"
    if _is_installed("nvarguscamerasrc"):
        caps = f"video/x-raw(memory:NVMM),format=NV12,{size}"
        return ["nvarguscamerasrc", f"sensor-id={number:d}", "!", caps, "!", "nvvidconv", "!", "video/x-raw,format=BGRx"]
    if not _is_installed("libcamerasrc"):
        message = "neither nvarguscamerasrc (Jetson) nor libcamerasrc is installed, and a CSI camera needs one of them"
        raise BackendError(message, hint="apt install gstreamer1.0-libcamera; in a Jetson container: --runtime nvidia")
    if number != 0:
        raise UsageError("libcamera does not number its cameras", hint="csi://0")
    return ["libcamerasrc", "!", f"video/x-raw,{size}"]


def _is_installed(element: str) -> bool:
    return subprocess.run([_tool("gst-inspect-1.0"), "--exists", element], capture_output=True, check=False).returncode == 0


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise BackendError(f"{name} is not installed", hint="apt install gstreamer1.0-tools gstreamer1.0-plugins-good")
    return path
