"""uvicorn in a thread of the run, and its end within a moment, whatever its clients do."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_MOST_CONNECTIONS = 192
_MOST_HEAD_BYTES = 16 << 10
_HEAD_WITHIN_S = 10
_FAREWELL_S = 0.3
_END_WITHIN_S = 3.0

_log = logging.getLogger("edgesod.web.http")
_log.setLevel(logging.ERROR)  # whoever can reach the port can send nonsense, and must not fill a log with it


class ServerThread:
    """Serve an application on a listening socket until :meth:`close`.

    Args:
        app: The ASGI application.
        listener: Belongs to this object from now on.
    """

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            http=_Connection,  # h11, because it bounds what a request's head may take
            h11_max_incomplete_event_size=_MOST_HEAD_BYTES,
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="edgesod-page", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Say goodbye to every client, hang up on those who do not listen, and end the thread; safe to call twice.

        A thread that is stuck is left behind; it ends with the process.
        """
        self._server.should_exit = True
        self._thread.join(_END_WITHIN_S)
        if self._thread.is_alive():
            _log.error("the page's server does not come back; left behind")


class _Connection(H11Protocol):
    """uvicorn's, for clients that say nothing, too much, or never leave."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _log
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(_HEAD_WITHIN_S, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        super().shutdown()
        # closing waits until everything is sent, which a client that does not read puts off for ever
        self.loop.call_later(_FAREWELL_S, self.transport.abort)

    def _give_up(self) -> None:
        if self.cycle is None:  # no request came
            self.transport.abort()
