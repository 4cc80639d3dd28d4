"""A real RTSP server, GStreamer's, which plays a clip over and over and can be killed and started again.

This file is both sides of it: :class:`RtspServer` for tests, and what Debian's own Python runs (it has ``gi``; it has
nothing of ours, so imports at the top are the standard library's alone).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

PACKAGES = "python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
_PYTHON = "/usr/bin/python3"
_CAPS = "video/x-h264,stream-format=byte-stream,alignment=au"
_LAUNCH = f"( appsrc name=feed is-live=true format=time block=true caps={_CAPS} ! h264parse ! rtph264pay name=pay0 pt=96 )"
_LENGTH = struct.Struct(">I")


def missing() -> str:
    """Return why no server can be started here, naming Debian's packages; nothing where one can."""
    check = (
        "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, GstRtspServer; Gst.init(None); "
        "raise SystemExit(not all(map(Gst.ElementFactory.find, ('appsrc', 'h264parse', 'rtph264pay'))))"
    )
    is_here = shutil.which(_PYTHON) and not subprocess.run([_PYTHON, "-c", check], capture_output=True, check=False).returncode
    return "" if is_here else f"needs Debian's packages: apt install {PACKAGES}"


class RtspServer:
    """Serves ``clip``, a video with H.264 in it, at :attr:`url`, without end; each start begins at its first frame."""

    def __init__(self, clip: Path, folder: Path, *, fps: int = 25, path: str = "clip") -> None:
        self._units = folder / "clip.units"
        self._units.write_bytes(b"".join(_LENGTH.pack(len(unit)) + unit for unit in _access_units(clip, folder)))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port: int = free.getsockname()[1]
        self._fps, self._path = fps, path
        self._process: subprocess.Popen[str] | None = None
        self.url = f"rtsp://127.0.0.1:{self._port}/{path}"

    def start(self) -> None:
        """Start it and wait until it listens."""
        command = [_PYTHON, __file__, str(self._port), self._path, str(self._units), str(self._fps)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "listening\n", "the RTSP server does not start"

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def freeze(self) -> None:
        """Make it fall silent, its connections open; :meth:`kill` ends that."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def __enter__(self) -> RtspServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()


def _access_units(clip: Path, folder: Path) -> list[bytes]:
    """Return the clip's pictures as they are coded, one byte stream with start codes each."""
    import av

    units = []
    with av.open(str(clip)) as source, av.open(str(folder / "clip.h264"), "w", format="h264") as raw:
        stream = raw.add_stream_from_template(source.streams.video[0])
        to_bytes = av.BitStreamFilterContext("h264_mp4toannexb", source.streams.video[0], stream)
        for packet in source.demux(video=0):
            units += [bytes(unit) for unit in to_bytes.filter(packet if packet.dts is not None else None)]
    return units


def _serve(port: str, path: str, units: str, fps: str) -> None:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    content, frames, at = Path(units).read_bytes(), [], 0
    while at < len(content):
        (length,) = _LENGTH.unpack_from(content, at)
        frames.append(content[at + 4 : at + 4 + length])
        at += 4 + length
    period = Gst.SECOND // int(fps)

    def configure(_: Any, media: Any) -> None:
        position = [0]

        def feed(source: Any, _: int) -> None:
            k = position[0]
            buffer = Gst.Buffer.new_wrapped(frames[k % len(frames)])
            buffer.pts = buffer.dts = k * period
            buffer.duration = period
            position[0] = k + 1
            source.emit("push-buffer", buffer)

        media.get_element().get_by_name_recurse_up("feed").connect("need-data", feed)

    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(_LAUNCH)
    factory.set_shared(True)
    factory.connect("media-configure", configure)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    server.get_mount_points().add_factory(f"/{path}", factory)
    if server.attach(None) == 0:
        raise SystemExit("the port is taken")
    print("listening", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
