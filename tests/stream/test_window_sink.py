"""The window, on a real X server without a monitor: what is on the screen, and the key that ends it."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

COLOUR = (40, 90, 180)
SIZE_HW = (120, 200)
LIMIT_S = 60
SHOW = f"""
import time
import numpy as np
from edgesod.stream import open_sink
from edgesod.types import Frame

image = np.full((*{SIZE_HW}, 3), {COLOUR}, np.uint8)
with open_sink("display://0") as sink:
    while not sink.is_done:
        sink.write(image, Frame(image, 0, 0.0, "test", 0.0))
        time.sleep(0.02)
"""


class Screen:
    """An X server's display, and the file that it draws in (in the format of ``xwd``)."""

    def __init__(self, number: str, folder: Path) -> None:
        self.environment = os.environ | {"DISPLAY": f":{number}", "QT_QPA_PLATFORM": "xcb"}
        self._file = folder / "Xvfb_screen0"

    def pixels(self) -> NDArray[np.uint8]:
        """Return what is on it, uint8 BGR."""
        content = self._file.read_bytes()
        header = struct.unpack(">25I", content[:100])
        width, height, begin = header[4], header[5], header[0] + 12 * header[19]
        return np.frombuffer(content, np.uint8, height * width * 4, begin).reshape(height, width, 4)[..., :3]


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Screen]:
    if not (shutil.which("Xvfb") and shutil.which("xdotool")):
        pytest.skip("needs Debian's packages: apt install xvfb xdotool")
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", "640x480x24", "-nolisten", "tcp", "-noreset", "-fbdir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            yield Screen(server.stdout.readline().strip(), tmp_path)
        finally:
            server.terminate()


def test_the_window_shows_the_picture_and_q_ends_it(screen: Screen) -> None:
    command = [sys.executable, "-c", SHOW]
    with subprocess.Popen(command, env=screen.environment, stderr=subprocess.PIPE, text=True) as showing:
        try:
            deadline = time.monotonic() + LIMIT_S
            while (screen.pixels() == COLOUR).all(axis=-1).sum() != SIZE_HW[0] * SIZE_HW[1]:
                assert time.monotonic() < deadline
                assert showing.poll() is None
                time.sleep(0.05)
            typing = ["xdotool", "search", "--sync", "--name", "^edgesod$", "windowfocus", "--sync", "key", "q"]
            subprocess.run(typing, env=screen.environment, check=True, timeout=LIMIT_S)
            _, said = showing.communicate(timeout=LIMIT_S)
        finally:
            showing.kill()
    assert showing.returncode == 0
    assert "QFont" not in said
