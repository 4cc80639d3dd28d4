"""Who may see the page: nobody but this machine's browsers, or whoever knows the token."""

from __future__ import annotations

import hashlib
import re
import secrets
from base64 import b64encode
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from edgesod.errors import UsageError
from edgesod.web.address import is_loopback

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_TOKEN = re.compile(r"[A-Za-z0-9._~-]{8,128}")
_COMMON_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_STYLE = (
    "html{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}body{max-width:24rem;margin:18vh auto;padding:0 1rem}"
    "h1{font-size:1.2rem}input,button{font:inherit;padding:.5rem .7rem;border-radius:.5rem;border:1px solid #8888}"
    "form{display:flex;gap:.5rem}input{flex:1;min-width:0}"
)
_STYLE_HASH = b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_ASK = f"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>edgesod</title><style>{_STYLE}</style><h1>This page needs its token</h1><p>edgesod printed it when it started.</p>
<form action="/"><input name="token" type="password" aria-label="Token" autocomplete="off" required autofocus>
<button>Open</button></form></html>"""


def make_token() -> str:
    """Return a token that nobody guesses: 192 random bits."""
    return secrets.token_urlsafe(24)


def check_token(token: str) -> str:
    """Return a token that somebody chose.

    Raises:
        UsageError: It is too short, or holds what a header or an address cannot.
    """
    if not _TOKEN.fullmatch(token):
        raise UsageError(
            "a token for the page is 8 to 128 letters, digits, dots, hyphens, underscores or tildes",
            hint="leave --token out and one is made",
        )
    return token


class Guard:
    """ASGI middleware that answers instead of the application where a request may not pass.

    With a token every request has to bring it: as ``Authorization: Bearer``, as the cookie that the page sets, or, for the page
    itself, as ``?token=``. Without one the page listens on this machine alone, and the request has to name it: a site that lets
    its own name point here (DNS rebinding) does not. No other site's page may ask for anything but the page itself.

    Args:
        app: What is guarded.
        token: ``None`` where the page is on localhost and nobody gave one.
        cookie: Name of the cookie; browsers keep cookies by host and not by port.
    """

    def __init__(self, app: ASGIApp, token: str | None, cookie: str) -> None:
        self._app = app
        self._token = token
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        query = parse_qs(scope["query_string"].decode("latin-1")).get("token", []) if scope["path"] == "/" else []
        brought_by_address = bool(query) and self._is_token(query[-1])

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                for name, value in _COMMON_HEADERS.items():
                    answer.setdefault(name, value)
                if brought_by_address:
                    answer.append("Set-Cookie", f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/")
            await send(message)

        refusal = self._refusal(scope["method"], headers, brought_by_address)
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, method: str, headers: Headers, brought_by_address: bool) -> Response | None:
        host = headers.get("host", "")
        if self._token is None and not is_loopback(_host_of(f"//{host}")):
            return PlainTextResponse("this page is for the machine it runs on; call it localhost\n", 403)
        if _is_foreign(method, host, headers):
            return PlainTextResponse("another site's page may not ask for this\n", 403)
        if self._token is None or brought_by_address or self._is_token(_token_of(headers, self._cookie)):
            return None
        challenge = {"WWW-Authenticate": 'Bearer realm="edgesod"'}
        if "text/html" not in headers.get("accept", ""):
            return PlainTextResponse("the token is missing or wrong\n", 401, challenge)
        policy = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; frame-ancestors 'none'"
        return HTMLResponse(_ASK, 401, {**challenge, "Content-Security-Policy": policy})

    def _is_token(self, brought: str) -> bool:
        return self._token is not None and secrets.compare_digest(brought.encode(), self._token.encode())


def _token_of(headers: Mapping[str, str], cookie: str) -> str:
    kind, _, brought = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return brought.strip()
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(cookie)
    except CookieError:
        return ""
    return found.value if found else ""


def _host_of(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:  # brackets that do not close, and the like
        return ""


def _is_foreign(method: str, host: str, headers: Mapping[str, str]) -> bool:
    """Tell whether a browser says that another site's page asks for something; following a link to this one is fine."""
    origin = headers.get("origin")
    if method != "GET" and origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
        return True
    return headers.get("sec-fetch-site") in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate"
