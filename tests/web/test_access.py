"""Who may see the page, and what nobody gets out of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
import requests

from edgesod.errors import UsageError
from tests.helpers.page import LIMIT_S, Run, connect, status_of

PATHS = (
    "/",
    "/page.js",
    "/page.css",
    "/icon.svg",
    "/stream.mjpg",
    "/snapshot.png",
    "/api/state",
    "/api/history",
    "/api/events",
    "/metrics",
    "/healthz",
    "/no-such-thing",
)


@pytest.fixture(scope="module")
def public() -> Iterator[Run]:
    """A page that every machine of the network can reach."""
    opened = Run("0.0.0.0:0")
    opened.push()
    yield opened
    opened.page.close()


@pytest.fixture(scope="module")
def local() -> Iterator[Run]:
    """A page for this machine alone."""
    opened = Run()
    opened.push()
    yield opened
    opened.page.close()


@pytest.mark.parametrize("path", PATHS)
def test_bound_to_the_network_nothing_is_answered_without_the_token(public: Run, path: str) -> None:
    base = f"http://127.0.0.1:{public.port}"
    wrong = {"Authorization": f"Bearer {public.page.token}x"}
    for headers in ({}, wrong, {"Cookie": f"edgesod_{public.port}=wrong"}, {"Host": "localhost"}):
        answer = requests.get(base + path, headers=headers, timeout=LIMIT_S)
        assert answer.status_code == 401
        assert "Bearer" in answer.headers["WWW-Authenticate"]
    assert requests.post(base + "/api/look", json={"effect": "mask"}, timeout=LIMIT_S).status_code == 401


def test_the_token_opens_the_page_and_the_cookie_keeps_it_open(public: Run) -> None:
    base = f"http://127.0.0.1:{public.port}"
    assert public.page.token
    assert f"?token={public.page.token}" in public.page.url
    bearer = {"Authorization": f"Bearer {public.page.token}"}
    assert requests.get(base + "/healthz", headers=bearer, timeout=LIMIT_S).status_code == 200
    with requests.Session() as browser:
        first = browser.get(f"{base}/?token={public.page.token}", timeout=LIMIT_S)
        assert first.status_code == 200
        set_cookie = first.headers["Set-Cookie"]
        assert "HttpOnly" in set_cookie
        assert "SameSite=Strict" in set_cookie
        assert browser.get(base + "/api/state", timeout=LIMIT_S).status_code == 200
    assert requests.get(f"{base}/api/state?token={public.page.token}", timeout=LIMIT_S).status_code == 401
    asked = requests.get(base, headers={"Accept": "text/html"}, timeout=LIMIT_S)
    assert "<form" in asked.text  # a person is asked for it
    assert "Set-Cookie" not in asked.headers


def test_a_token_that_was_given_stays_out_of_the_address(public: Run) -> None:
    given = Run("127.0.0.1:0", token="a-good-token")
    try:
        assert "a-good-token" not in given.page.url
        assert requests.get(given.base + "/healthz", timeout=LIMIT_S).status_code == 401  # asked for on localhost as well
        bearer = {"Authorization": "Bearer a-good-token", "Host": "robot.example"}  # as a reverse proxy asks
        assert requests.get(given.base + "/api/state", headers=bearer, timeout=LIMIT_S).status_code == 200
    finally:
        given.page.close()
    for bad in ("", "short", "with space and more", "semi;colon;;", "ünïcödé-token"):
        with pytest.raises(UsageError, match="token"):
            Run("127.0.0.1:0", token=bad)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9", "[::1]:80", "LOCALHOST:8080"])
def test_on_localhost_no_token_is_needed(local: Run, host: str) -> None:
    assert local.page.token is None
    assert requests.get(local.base + "/api/state", headers={"Host": host}, timeout=LIMIT_S).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:80", "192.168.1.5", "localhost.evil.example", "::", "[::1", "[x]", ""]
)
def test_on_localhost_a_name_that_was_pointed_here_gets_nothing(local: Run, host: str) -> None:
    answer = requests.get(local.base + "/api/state", headers={"Host": host}, timeout=LIMIT_S)
    assert answer.status_code in (400, 403)
    assert "statistics" not in answer.text


def test_another_sites_page_can_neither_switch_nor_embed(local: Run) -> None:
    before = local.look.as_dict()
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        answer = requests.post(local.base + "/api/look", json={"effect": "mask"}, headers=headers, timeout=LIMIT_S)
        assert answer.status_code == 403
    embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert requests.get(local.base + "/stream.mjpg", headers=embedded, timeout=LIMIT_S).status_code == 403
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert requests.get(local.base + "/", headers=followed, timeout=LIMIT_S).status_code == 200
    form = {"Content-Type": "text/plain"}  # what a form can send without the browser asking first
    answer = requests.post(local.base + "/api/look", data='{"effect": "mask"}', headers=form, timeout=LIMIT_S)
    assert answer.status_code == 415
    assert local.look.as_dict() == before


def test_every_answer_forbids_what_the_page_does_not_need(local: Run) -> None:
    for path in ("/", "/page.js", "/api/state", "/no-such-thing"):
        headers = requests.get(local.base + path, timeout=LIMIT_S).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy  # no other host
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../../../etc/passwd",
        "/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/static/../page.py",
        "/static/index.html",
        "/..%2f..%2fsetup.py",
        "/%5c..%5c..%5cetc%5cpasswd",
        "//etc/passwd",
        "/page.js/../../server.py",
        "/page.js%00.py",
        "/openapi.json",
        "/docs",
    ],
)
def test_no_path_leads_out_of_the_page(local: Run, path: str) -> None:
    with connect(local.port, f"GET {path}", "Connection: close\r\n") as client:
        answer = client.makefile("rb").read()
    assert answer.split()[1].startswith(b"4"), answer[:80]
    for secret in (b"root:", b"import", b"swagger"):
        assert secret not in answer


@pytest.mark.parametrize("head", ["X-Long: " + "a" * 10_000_000, "Cookie: " + "a=b; " * 2_000_000, "X-Many: 1\r\n" * 900_000])
def test_a_header_of_ten_megabytes_is_refused(local: Run, head: str) -> None:
    with socket.create_connection(("127.0.0.1", local.port), LIMIT_S) as client:
        with suppress(ConnectionResetError, BrokenPipeError):  # it does not read on, which is the point
            client.sendall(f"GET / HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n".encode())
        assert 400 <= status_of(client) < 500
    assert requests.get(local.base + "/healthz", timeout=LIMIT_S).status_code == 200


def test_a_body_that_is_no_switch_is_refused(local: Run) -> None:
    before = local.look.as_dict()
    for body, status in (
        ("a" * 1_000_000, 413),
        ("[]", 422),
        ("{", 422),
        ('{"effect": 1}', 422),
        ('{"effect": "sparkles"}', 422),
        ('{"effect": "replace"}', 422),  # no background was given
        ('{"threshold": "0.5"}', 422),
        ('{"threshold": 1.5}', 422),
        ('{"threshold": NaN}', 422),
        ('{"effect": "mask", "threshold": -1}', 422),
        ('{"colour": "red"}', 422),
    ):
        headers = {"Content-Type": "application/json"}
        answer = requests.post(local.base + "/api/look", data=body, headers=headers, timeout=LIMIT_S)
        assert answer.status_code == status, (body[:40], answer.text)
        assert answer.json()["error"]
    assert local.look.as_dict() == before
