"""What the page answers to which address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import ClientDisconnect

from edgesod.errors import UsageError
from edgesod.processing.look import Look
from edgesod.web.metrics import CONTENT_TYPE, as_prometheus
from edgesod.web.monitor import Monitor
from edgesod.web.pictures import STREAM_TYPE, Pictures

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

MOST_VIEWERS = 64
"""Of the picture; as many again may follow the numbers."""

_MOST_BODY_BYTES = 4096
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/chart.js": ("chart.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


class LookChange(BaseModel):
    """What the switches of the page send: what is not named stays as it is; :meth:`Look.set` knows what it may be."""

    model_config = ConfigDict(extra="forbid", strict=True)

    effect: str = ""
    threshold: float | None = None


def make_app(pictures: Pictures, monitor: Monitor, look: Look, *, on_started: Callable[[], None]) -> FastAPI:
    """Return the application; ``on_started`` is called in its loop once it serves."""

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        pictures.attach(asyncio.get_running_loop())
        watching = asyncio.create_task(monitor.watch())
        on_started()
        yield
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    # without its own documentation pages: those load scripts from another host
    app = FastAPI(title="edgesod", lifespan=life, openapi_url=None, docs_url=None, redoc_url=None)
    for path, (name, kind) in _FILES.items():
        app.add_api_route(path, _file(name, kind), include_in_schema=False)
    seats = {"pictures": 0, "numbers": 0}

    def count(room: str, change: int) -> None:
        seats[room] += change
        monitor.num_viewers = seats["pictures"]

    def feed(room: str, body: AsyncIterator[bytes], kind: str) -> Response:
        if seats[room] >= MOST_VIEWERS:
            return PlainTextResponse(f"{MOST_VIEWERS} are watching already\n", 503, {"Retry-After": "5"})
        return _Feed(body, kind, lambda change: count(room, change))

    @app.get("/stream.mjpg")
    async def stream() -> Response:
        return feed("pictures", pictures.stream(), STREAM_TYPE)

    @app.get("/api/events")
    async def events() -> Response:
        return feed("numbers", monitor.events(), "text/event-stream")

    @app.get("/snapshot.png")
    async def snapshot() -> Response:
        png = await pictures.snapshot()
        if png is None:
            return PlainTextResponse("no picture has come yet\n", 503, {"Retry-After": "1"})
        name = f"edgesod-{datetime.now():%Y%m%d-%H%M%S}.png"
        return Response(png, media_type="image/png", headers={"Content-Disposition": f'attachment; filename="{name}"'})

    @app.get("/api/state")
    async def state() -> JSONResponse:
        return JSONResponse(monitor.state())

    @app.get("/api/history")
    async def history() -> JSONResponse:
        return JSONResponse(monitor.history())

    @app.post("/api/look")
    async def change_look(request: Request) -> JSONResponse:
        change = await _look_change(request)
        if isinstance(change, JSONResponse):
            return change
        try:
            look.set(**change)
        except UsageError as error:
            return JSONResponse({"error": str(error), "hint": error.hint}, 422)
        monitor.publish()
        return JSONResponse(look.as_dict())

    @app.get("/healthz")
    async def health() -> JSONResponse:
        is_well, about = monitor.health()
        return JSONResponse(about, 200 if is_well else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(as_prometheus(monitor.state()), media_type=CONTENT_TYPE)

    return app


class _Feed(StreamingResponse):
    """An answer without an end, counted while it lasts."""

    def __init__(self, body: AsyncIterator[bytes], kind: str, count: Callable[[int], None]) -> None:
        super().__init__(body, headers={"Content-Type": kind})
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._count(1)
        try:
            async with aclosing(self.body_iterator):  # type: ignore[type-var]
                await super().__call__(scope, receive, send)
        finally:
            self._count(-1)


def _file(name: str, kind: str) -> Callable[[], Any]:
    """Return what answers with a file of the page, read once: no address is ever made into a path."""
    content = (files("edgesod.web") / "static" / name).read_bytes()

    async def answer() -> Response:
        return Response(content, headers={"Content-Type": kind, "Cache-Control": "no-cache"})

    return answer


async def _look_change(request: Request) -> dict[str, Any] | JSONResponse:
    """Return what a request wants changed, or the answer that says why it is not one.

    Only JSON is taken: a form of another site cannot send it without the browser asking first.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return JSONResponse({"error": "the switches speak JSON", "hint": "Content-Type: application/json"}, 415)
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST_BODY_BYTES:
                return JSONResponse({"error": f"more than {_MOST_BODY_BYTES} bytes", "hint": ""}, 413, {"Connection": "close"})
        return LookChange.model_validate_json(body).model_dump(exclude_unset=True)
    except ClientDisconnect:
        return JSONResponse({"error": "the rest did not come", "hint": ""}, 400)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = f"{where}: {first['msg']}" if where else first["msg"]
        return JSONResponse({"error": message, "hint": '{"effect": "blur", "threshold": 0.5}'}, 422)
