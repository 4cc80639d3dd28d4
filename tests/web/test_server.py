"""The page's server ends within its time even when it is stuck."""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the page needs the extra `web`")

from edgesod.web import server


def test_a_stuck_server_is_left_behind(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(server, "_END_WITHIN_S", 0.2)
    caplog.set_level(logging.ERROR)
    is_stuck, release = threading.Event(), threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            is_stuck.set()
            release.wait(20)
            return
        for what in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{what}.complete"})

    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    running = server.ServerThread(app, listener)
    with socket.create_connection(address, 20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert is_stuck.wait(20)
        begun_s = time.perf_counter()
        running.close()
        assert time.perf_counter() - begun_s < 10
    assert "left behind" in caplog.text
    release.set()
    running._thread.join(20)
    assert not running._thread.is_alive()
