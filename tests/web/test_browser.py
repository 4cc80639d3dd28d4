"""The page in a real browser: Debian's Chromium without a screen, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from edgesod.stream.statistics import INFERENCE, RENDER, SINK
from tests.helpers.page import LIMIT_S, Run
from tests.helpers.sleeping import sleeping_runtime
from tests.helpers.waiting import until

CHROMIUM = shutil.which("chromium")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs the Debian package chromium")

_SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_SIZES = {"desktop": {"width": 1440, "height": 900}, "phone": {"width": 390, "height": 844}}
_LIMIT_MS = LIMIT_S * 3000  # a browser on a busy machine


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_SWITCHES, timeout=_LIMIT_MS)
        yield browser
        browser.close()


@pytest.fixture
def open_tab(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open a page in a browser of its own; fails at the end if it asked another host or complained."""
    contexts, complaints = [], []

    def watched(tab: Any, host: str) -> Any:
        tab.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda asked: urlsplit(asked.url).netloc != host and complaints.append(asked.url))
        return tab

    def open_(url: str, size: str, scheme: str = "dark") -> Any:
        context = chromium.new_context(viewport=_SIZES[size], has_touch=size == "phone", color_scheme=scheme)
        contexts.append(context)
        tab = watched(context.new_page(), urlsplit(url).netloc)
        tab.set_default_timeout(_LIMIT_MS)
        tab.goto(url)
        return tab

    yield open_
    assert not complaints
    for context in contexts:
        context.close()


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "dark"), ("phone", "light")])
def test_the_page_shows_and_switches(run: Run, open_tab: Callable[..., Any], size: str, scheme: str, tmp_path: Path) -> None:
    with sleeping_runtime() as runtime:
        run.page.show_engine(runtime)
    for stage in ("capture", "preprocess", "inference", "postprocess", "steady", "render", "sink", "end_to_end"):
        run.statistics.add_stages({stage: 5.0})
    for hand_over in (INFERENCE, RENDER, SINK):
        run.statistics.add_age(hand_over, 0.02)
    with run.going(6):
        tab = open_tab(run.page.url, size, scheme)
        tab.locator("body[data-state=running]").wait_for()
        assert tab.locator("#source").inner_text() == "camera"
        until(lambda: float(tab.locator("#fps").inner_text()) > 1, "a speed")
        assert tab.locator("#stages li").count() == 8
        assert tab.locator("#engine").inner_text() == "tiny 32×48 FP32 · memory"
        assert tab.locator("#threshold-value").inner_text() == "0.50, the model's own"
        first = shown(tab)
        until(lambda: (shown(tab) != first).any(), "another picture")

        tab.locator("label[for=effect-mask]").click()
        until(lambda: run.look.effect == "mask", "the switch")
        until(lambda: is_mask(shown(tab)), "the mask in the picture")
        tab.locator("#threshold").fill("0.8")
        until(lambda: run.look.threshold == 0.8, "the threshold")
        tab.locator("#own-threshold").click()
        until(lambda: run.look.threshold is None, "the model's own threshold")
        until(lambda: tab.locator("#threshold-value").inner_text() == "0.50, the model's own", "its value")
        assert not tab.locator("#own-threshold").is_visible()
        with tab.expect_download() as download:
            tab.locator("#snapshot").click()
        snapshot = cv2.imread(str(download.value.path()))
        assert snapshot.shape == (180, 320, 3)
        assert is_mask(snapshot)
        tab.locator("label[for=effect-overlay]").click()
        until(lambda: not is_mask(shown(tab)), "the other effect in the picture")

        wide, high = _SIZES[size].values()
        page_wide = tab.evaluate("() => document.documentElement.scrollWidth")
        assert page_wide <= wide, "it has to be moved sideways"
        if size == "desktop":
            assert tab.evaluate("() => document.documentElement.scrollHeight") <= high, "it does not fit on the screen"
        keep_screenshot(tab, f"page-{size}-{scheme}.png", tmp_path)


def test_the_page_says_what_became_of_the_source(run: Run, open_tab: Callable[..., Any], tmp_path: Path) -> None:
    with run.going(6):
        tab = open_tab(run.page.url, "phone")
        tab.locator("body[data-state=running]").wait_for()
        assert not tab.locator("#notice").is_visible()
        run.source.state, run.source.num_reconnects = "reconnecting", 3
        tab.locator("body[data-state=reconnecting]").wait_for()
        assert tab.locator("#notice").is_visible()
        assert "3 times" in tab.locator("#notice").inner_text()
        assert tab.locator("#reconnects").inner_text() == "3"
        keep_screenshot(tab, "page-reconnecting.png", tmp_path)
        run.source.state = "open"
        tab.locator("body[data-state=running]").wait_for()
        tab.locator("#picture").evaluate("picture => picture.removeAttribute('src')")  # what follows is not its doing
        run.page.close()
        tab.locator("body[data-state=ended]").wait_for()
        assert "ended" in tab.locator("#notice").inner_text()
        tab.goto("about:blank")


def test_the_address_with_the_token_opens_the_page_and_hides_it(open_tab: Callable[..., Any], tmp_path: Path) -> None:
    run = Run("0.0.0.0:0")
    try:
        with run.going(6):
            query = urlsplit(run.page.url).query
            tab = open_tab(f"http://127.0.0.1:{run.port}/?{query}", "desktop")
            tab.locator("body[data-state=running]").wait_for()
            until(lambda: tab.url == f"http://127.0.0.1:{run.port}/", "the token leaving the address")
            assert run.page.token not in tab.evaluate("() => document.cookie")
            tab.reload()
            tab.locator("body[data-state=running]").wait_for()
            first = shown(tab)
            until(lambda: (shown(tab) != first).any(), "another picture")
            tab.goto("about:blank")
    finally:
        run.page.close()


def shown(tab: Any) -> np.ndarray:
    """Return the live picture as the browser has it, at a tenth of its size, uint8 BGR ``(18, 32, 3)``."""
    until(lambda: tab.locator("#picture").evaluate("picture => picture.naturalWidth") == 320, "a first picture")
    rgba = tab.locator("#picture").evaluate(
        """picture => {
            const context = new OffscreenCanvas(32, 18).getContext("2d");
            context.drawImage(picture, 0, 0, 32, 18);
            return Array.from(context.getImageData(0, 0, 32, 18).data);
        }"""
    )
    return np.array(rgba, np.uint8).reshape(18, 32, 4)[:, :, 2::-1]


def is_mask(picture: np.ndarray) -> bool:
    """Tell whether the left half, which is the subject, is white and the rest black, but for what happens at an edge."""
    step = picture.shape[1] // 16
    return bool((picture[:, : 7 * step] > 245).all() and (picture[:, 9 * step :] < 10).all())


def keep_screenshot(tab: Any, name: str, folder: Path) -> None:
    """Write a picture of the page, to ``EDGESOD_SCREENSHOTS`` where that is set, for somebody to look at."""
    folder = Path(os.environ.get("EDGESOD_SCREENSHOTS", folder))
    tab.screenshot(path=str(folder / name), full_page=True)
    assert (folder / name).stat().st_size > 10_000
