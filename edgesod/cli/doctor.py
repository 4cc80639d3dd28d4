"""``edgesod doctor``: what works on this machine, and what to do about the rest."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from edgesod.cli import _options, _output

NAME = "doctor"

_OPTIONAL = (("torch", "training and your own weights", "pip install torch -e '.[train]', in a clone of edgesod"),)


def command(as_json: _options.Json = False) -> None:
    """Show what works on this machine, and how to get the rest.

    Backends, cameras, sensors, installed packages, built engines.
    """
    from edgesod import __version__, assets, zoo
    from edgesod.errors import BackendError
    from edgesod.manifest import this_device, versions_here
    from edgesod.runtime import available_backends, choose_backend

    device = this_device()
    rows: list[tuple[str, str, str]] = [
        ("edgesod", __version__, ""),
        ("Python", platform.python_version(), ""),
        ("CPU", f"{device.name} ({device.architecture})", ""),
        (
            "8-bit dot product",
            "yes" if device.int8_dot_product else "no",
            "" if device.int8_dot_product else "INT8 engines use 7-bit weights here and gain less",
        ),
    ]
    rows.append(("GPU", *_gpu()))
    for name, state in available_backends().items():
        rows.append((f"backend {name}", state.text, state.remedy))
    try:
        rows.append(("used for INT8", choose_backend("int8")[1], ""))
    except BackendError as error:
        rows.append(("used for INT8", "nothing", error.hint))
    for package, use, remedy in _OPTIONAL:
        version = versions_here(package).get(package)
        rows.append((package, version or "not installed", "" if version else f"for {use}: {remedy}"))
    rows.append(("H.264 encoder", *_h264()))
    rows += [
        ("cameras by V4L2", *_cameras()),
        ("CSI cameras", *_csi()),
        ("page (--web)", *_page()),
        ("heat and power", *_board()),
    ]
    rows.append(("models", ", ".join(zoo.names()) or "none", ""))
    root = assets.engines_root()
    built = sorted(path.parent.name for path in root.glob("*/manifest.json"))
    rows.append((f"engines in {root}", ", ".join(built) or "none", "" if built else "edgesod build --model u2netp --int8"))
    if as_json:
        _output.result_json({"checks": [{"what": a, "state": b, "remedy": c} for a, b, c in rows]})
        return
    _output.table("", ("what", "here", "to do"), rows)


def _gpu() -> tuple[str, str]:
    from edgesod.errors import BackendError
    from edgesod.runtime.cuda import driver_is_installed, open_cuda

    try:
        with open_cuda() as cuda:
            gpu, (free, total) = cuda.device_info(), cuda.mem_info()
            graphs = "with" if cuda.has_graphs else "without"
            return f"{gpu.text}, {free >> 20} of {total >> 20} MiB free; by {cuda.name}, {graphs} CUDA graphs", ""
    except BackendError as error:
        return str(error), error.hint if driver_is_installed() else ""


def _h264() -> tuple[str, str]:
    import av

    if "libx264" in av.codecs_available:
        return "libx264", ""
    return "missing", "reinstall PyAV from its wheel: pip install --force-reinstall --only-binary :all: av"


def _cameras() -> tuple[str, str]:
    devices = sorted(Path("/dev").glob("video*"))
    is_closed = any(not os.access(path, os.R_OK | os.W_OK) for path in devices)
    found = ", ".join(map(str, devices)) or "none is connected"
    return found, "sudo usermod -aG video $USER, and log in again" if is_closed else ""


def _csi() -> tuple[str, str]:
    import cv2

    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        return "GStreamer, through OpenCV", ""
    if shutil.which("gst-launch-1.0"):
        return "GStreamer, through a pipe: this OpenCV is built without it", ""
    return "GStreamer is not installed", "for csi://0: sudo apt install gstreamer1.0-tools gstreamer1.0-plugins-good"


def _page() -> tuple[str, str]:
    from edgesod.manifest import versions_here

    found = versions_here("fastapi", "uvicorn")
    if len(found) == 2:
        return ", ".join(f"{name} {version}" for name, version in found.items()), ""
    return "not installed", "pip install fastapi uvicorn"


def _board() -> tuple[str, str]:
    from edgesod.sensors import read_sensors

    told = read_sensors()
    rails = {**told.power_w, **told.energy_j}
    said = [
        f"{len(names)} {what}" for names, what in ((told.temperatures_c, "temperatures"), (rails, "rails of power")) if names
    ]
    return ", ".join(said) or "this machine tells neither", ""
