"""A real RTSP server, GStreamer's, which plays a clip over and over or takes one, and can be killed and started again.

This file is both sides of it: :class:`RtspServer` and :class:`RtspRecorder` for tests, and what Debian's own Python runs
(it has ``gi``; it has nothing of ours, so imports at the top are the standard library's alone).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

PACKAGES = "python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
_PYTHON = "/usr/bin/python3"
_CAPS = "video/x-h264,stream-format=byte-stream,alignment=au"
_LAUNCH = f"( appsrc name=feed is-live=true format=time block=true caps={_CAPS} ! h264parse ! rtph264pay name=pay0 pt=96 )"
_RECORD = (
    "( rtph264depay name=depay0 ! h264parse ! avdec_h264 ! videoconvert ! video/x-raw,format=BGR ! "
    "appsink name=out emit-signals=true sync=false )"
)
_RECORD_PACKAGES = "gstreamer1.0-libav"
_LENGTH = struct.Struct(">I")


def missing(*, to_record: bool = False) -> str:
    """Return why no server can be started here, naming Debian's packages; nothing where one can."""
    elements = ("appsrc", "h264parse", "rtph264pay", *(("rtph264depay", "avdec_h264") if to_record else ()))
    check = (
        "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, GstRtspServer; Gst.init(None); "
        f"raise SystemExit(not all(map(Gst.ElementFactory.find, {elements})))"
    )
    is_here = shutil.which(_PYTHON) and not subprocess.run([_PYTHON, "-c", check], capture_output=True, check=False).returncode
    packages = f"{PACKAGES} {_RECORD_PACKAGES}" if to_record else PACKAGES
    return "" if is_here else f"needs Debian's packages: apt install {packages}"


class _Server:
    """GStreamer's server in a process of its own, on a port that stays the same."""

    def __init__(self, path: str, *arguments: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port: int = free.getsockname()[1]
        self._command = [_PYTHON, __file__, str(port), path, *arguments]
        self._process: subprocess.Popen[str] | None = None
        self.url = f"rtsp://127.0.0.1:{port}/{path}"

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
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

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()


class RtspServer(_Server):
    """Serves ``clip``, a video with H.264 in it, at :attr:`url`, without end; each start begins at its first frame."""

    def __init__(self, clip: Path, folder: Path, *, fps: int = 25, path: str = "clip") -> None:
        units = folder / "clip.units"
        units.write_bytes(b"".join(_LENGTH.pack(len(unit)) + unit for unit in _access_units(clip, folder)))
        super().__init__(path, str(units), str(fps))


class RtspRecorder(_Server):
    """Takes what is published at :attr:`url`, from ``user`` with ``password`` alone, and decodes it."""

    def __init__(self, *, user: str, password: str) -> None:
        super().__init__("live", user, password)

    def read(self) -> tuple[float, int, int, list[float]]:
        """Wait for the next picture: its time in seconds, height, width and the mean of each of blue, green and red."""
        assert self._process is not None
        assert self._process.stdout is not None
        time_s, height, width, means = json.loads(self._process.stdout.readline())
        return time_s, height, width, means


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
    from gi.repository import Gst, GstRtspServer

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
    _listen(GstRtspServer.RTSPServer(), port, path, factory)


def _record(port: str, path: str, user: str, password: str) -> None:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import Gst, GstRtspServer

    Gst.init(None)

    def configure(_: Any, media: Any) -> None:
        def report(sink: Any) -> Any:
            sample = sink.emit("pull-sample")
            shape, buffer = sample.get_caps().get_structure(0), sample.get_buffer()
            height, width = shape.get_value("height"), shape.get_value("width")
            content = buffer.extract_dup(0, buffer.get_size())
            rows = [content[k * len(content) // height :][: 3 * width] for k in range(height)]
            means = [sum(sum(row[channel::3]) for row in rows) / (height * width) for channel in range(3)]
            print(json.dumps([buffer.pts / Gst.SECOND, height, width, means]), flush=True)
            return Gst.FlowReturn.OK

        media.get_element().get_by_name_recurse_up("out").connect("new-sample", report)

    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
    factory.set_launch(_RECORD)
    factory.connect("media-configure", configure)
    rights = GstRtspServer.RTSPPermissions()
    rights.add_role("publisher")
    for right in ("media.factory.access", "media.factory.construct"):
        rights.add_permission_for_role("publisher", right, True)
    factory.set_permissions(rights)
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "publisher")
    auth = GstRtspServer.RTSPAuth()
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server = GstRtspServer.RTSPServer()
    server.set_auth(auth)
    _listen(server, port, path, factory)


def _listen(server: Any, port: str, path: str, factory: Any) -> None:
    from gi.repository import GLib

    server.set_address("127.0.0.1")
    server.set_service(port)
    server.get_mount_points().add_factory(f"/{path}", factory)
    if server.attach(None) == 0:
        raise SystemExit("the port is taken")
    print("listening", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    port, path, *rest = sys.argv[1:]
    if Path(rest[0]).is_file():
        _serve(port, path, *rest)
    else:
        _record(port, path, *rest)
