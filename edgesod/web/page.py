"""Open the page of a run: a sink like any other, that shows what it is given to whoever looks."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from edgesod.errors import BackendError, OutputError
from edgesod.processing.look import Look
from edgesod.stream.base import Sink
from edgesod.stream.statistics import LiveStatistics
from edgesod.types import Frame, Result
from edgesod.web.address import Address, bracketed, is_loopback, reachable_host
from edgesod.web.monitor import Monitor
from edgesod.web.pictures import Pictures

if TYPE_CHECKING:
    from edgesod.runtime import Runtime

_START_WITHIN_S = 30


def open_page(address: str, *, statistics: LiveStatistics, look: Look, token: str | None = None) -> PageSink:
    """Show a run to browsers, from a thread of its own.

    Args:
        address: ``:8080`` is for browsers of this machine alone, ``0.0.0.0:8080`` for everybody who knows the token; port 0
            takes a free one.
        statistics: What the pipeline feeds.
        look: What the switches of the page change, and what the pipeline renders with.
        token: What every request has to bring. Without one it is made, where others than this machine can reach the page.

    Returns:
        The page, which is a sink; pictures of a run's first source are shown.

    Raises:
        UsageError: An address or a token that cannot be one.
        OutputError: The port is taken, or this machine has no such address.
        BackendError: FastAPI or uvicorn is not installed.
    """
    where = Address.parse(address)
    try:
        from edgesod.web.access import Guard, check_token, make_token
        from edgesod.web.app import make_app
        from edgesod.web.server import ServerThread
    except ImportError as error:
        raise BackendError(
            f"the page needs {error.name}, which is not installed", hint="pip install fastapi uvicorn"
        ) from error
    chosen = None if token is None else check_token(token)
    listener = where.listen()
    host, port = listener.getsockname()[:2]
    secret = chosen if chosen or is_loopback(host) else make_token()
    pictures, monitor = Pictures(), Monitor(statistics, look)
    has_started = threading.Event()
    app = make_app(pictures, monitor, look, on_started=has_started.set)
    url = f"http://{bracketed(reachable_host(listener))}:{port}/"
    server = ServerThread(Guard(app, secret, f"edgesod_{port}"), listener)
    if not has_started.wait(_START_WITHIN_S):
        server.close()
        raise OutputError(f"the page at {where} did not start within {_START_WITHIN_S} s")
    return PageSink(url if secret == chosen else f"{url}?token={secret}", secret, pictures, monitor, server)


class PageSink(Sink):
    """A page that is open until it is closed.

    Attributes:
        url: What to open first. It holds the token where one was made, so that it can be followed; one that was given is known
            already and stays out of logs.
        token: What every request has to bring, or ``None``.
    """

    def __init__(self, url: str, token: str | None, pictures: Pictures, monitor: Monitor, server: Any) -> None:
        self.name = url.partition("?")[0]
        self.url = url
        self.token = token
        self._pictures = pictures
        self._monitor = monitor
        self._server = server

    def show_engine(self, runtime: Runtime) -> None:
        """Show what runs: the page is there before the engine is loaded."""
        recipe = runtime.recipe
        self._monitor.engine = {
            "model": recipe.model,
            "size": "{}×{}".format(*recipe.size_hw),
            "precision": recipe.precision,
            "backend": runtime.backend,
            "threshold": recipe.postprocessing.threshold,
        }

    def takes(self, frame: Frame) -> bool:
        """Tell whether a picture is worth drawing; see :meth:`Sink.takes`."""
        return frame.source == 0 and self._pictures.is_due()

    def write(self, image: NDArray[Any], frame: Frame, result: Result | None = None) -> None:
        """See :meth:`Sink.write`; never waits for a browser."""
        if self.takes(frame):  # several may be drawn before the first of them is here
            self._pictures.put(image)

    def close(self) -> None:
        """Tell everybody who looks that the run is over, and end within a second whatever they do; safe to call twice."""
        self._pictures.end()
        self._monitor.end()
        self._server.close()
        self._pictures.close()

    def abort(self) -> None:
        """See :meth:`close`: a page keeps nothing."""
        self.close()
