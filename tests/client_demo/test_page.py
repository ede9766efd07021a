"""The demo page in headless Chromium against a real server: it loads, goes live, interrupts, explains errors, fits a phone."""

from __future__ import annotations

import math
import struct
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.streamer.live import LiveServer, serving

pytestmark = [pytest.mark.browser, pytest.mark.slow]
OWN = ("http://127.0.0.1:", "ws://127.0.0.1:", "blob:", "data:")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required", "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with serving("--max-sessions", "1") as running:
        yield running


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser, server: LiveServer) -> Iterator[Page]:
    """A fresh page; the test fails if a script of it fails, or if it asks any other server for anything."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    fresh = context.new_page()
    errors: list[str] = []
    fresh.on("pageerror", lambda error: errors.append(str(error)))
    fresh.on("request", lambda request: errors.append(request.url) if not request.url.startswith(OWN) else None)
    yield fresh
    fresh.evaluate("window.livemimic?.session?.close()")
    context.close()
    assert errors == []


def phase(page: Page, name: str) -> None:
    page.wait_for_function(f"document.body.dataset.phase === '{name}'", timeout=20_000)


def playing(page: Page) -> dict[str, Any]:
    """Waits until the video has moved on, and says how large it is."""
    page.wait_for_function("document.getElementById('video').getVideoPlaybackQuality().totalVideoFrames > 10", timeout=20_000)
    size: dict[str, Any] = page.evaluate("(({videoWidth, videoHeight}) => ({videoWidth, videoHeight}))(document.getElementById('video'))")
    return size


def inside(page: Page, selector: str) -> bool:
    """Whether all of it is on the screen without scrolling."""
    box, screen = page.locator(selector).bounding_box(), page.viewport_size
    assert box is not None and screen is not None
    return box["x"] >= 0 and box["y"] >= 0 and box["x"] + box["width"] <= screen["width"] and box["y"] + box["height"] <= screen["height"]


def tone(path: Path, seconds: float = 3.0) -> Path:
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, 16_000, 0, "NONE", "NONE"))
        out.writeframes(b"".join(struct.pack("<h", int(9000 * math.sin(n * 0.08))) for n in range(int(seconds * 16_000))))
    return path


def test_a_visitor_starts_sees_the_presenter_and_stops(page: Page, server: LiveServer) -> None:
    page.goto(f"{server.url}/?debug=1")
    page.wait_for_selector("#people button")
    page.click("#start")
    phase(page, "live")
    assert playing(page) == {"videoWidth": 256, "videoHeight": 256}
    for figure in ("latency", "fps", "skew", "freezes"):
        page.wait_for_function(f"/\\d/.test(document.getElementById('{figure}').textContent)", timeout=10_000)
    assert not page.is_visible("#start")
    page.click("#mute")
    assert page.evaluate("document.getElementById('video').muted")
    with page.expect_response(lambda response: response.request.method == "DELETE") as deleted:
        page.click("#stop")
    assert deleted.value.status == 204  # ended once, by the page; not by hanging up
    phase(page, "setup")
    assert page.is_enabled("#start") and not page.is_visible("#stop")


def test_a_sound_file_is_spoken_and_interrupted(page: Page, server: LiveServer, tmp_path: Path) -> None:
    # Chromium's pretended microphone beeps every second, which talks over the avatar within 0.2 s.
    page.add_init_script("navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotFoundError'))")
    page.goto(f"{server.url}/?debug=1&auto=agent")
    phase(page, "live")
    playing(page)
    page.set_input_files("#sound", str(tone(tmp_path / "tone.wav", 8.0)))
    page.click("#speak")
    page.wait_for_function("document.getElementById('state').dataset.state === 'speaking'", timeout=10_000)
    page.click("#interrupt")
    page.wait_for_function("document.getElementById('state').dataset.state !== 'speaking'", timeout=3_000)


def test_a_full_server_is_explained_with_a_countdown(page: Page, browser: Browser, server: LiveServer) -> None:
    page.goto(f"{server.url}/?debug=1&auto=mirror")
    phase(page, "live")
    second = browser.new_page()
    second.goto(f"{server.url}/?debug=1")
    second.wait_for_selector("#people button")
    second.click("#start")
    second.wait_for_selector("#notice:not([hidden])")
    assert "Trying again in" in second.inner_text("#notice-hint")
    assert inside(second, "#notice")
    second.close()


def test_a_blocked_microphone_is_explained(page: Page, server: LiveServer) -> None:
    page.add_init_script("navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotAllowedError'))")
    page.goto(server.url)
    page.wait_for_selector("#people button")
    page.click("#start")
    page.wait_for_selector("#notice:not([hidden])")
    assert "microphone is blocked" in page.inner_text("#notice-title")
    phase(page, "setup")
    assert page.is_enabled("#start")


def test_a_server_that_ends_is_explained(page: Page) -> None:
    """The page says so, stops showing a live picture, and offers to reconnect."""
    with serving() as doomed:
        page.goto(f"{doomed.url}/?auto=mirror")
        phase(page, "live")
    page.wait_for_selector("#notice:not([hidden])")
    assert page.inner_text("#notice-title") == "The server is shutting down."
    assert page.inner_text("#notice-action") == "Reconnect"
    phase(page, "setup")


def test_a_wrong_picture_is_explained(page: Page, server: LiveServer, tmp_path: Path) -> None:
    page.goto(server.url)
    page.wait_for_selector("#people button")
    wrong = tmp_path / "face.png"
    wrong.write_bytes(b"this is no picture")
    page.set_input_files("#portrait", str(wrong))
    page.wait_for_selector("#notice:not([hidden])")
    assert page.inner_text("#notice-title") and page.inner_text("#notice-hint")


def test_what_is_live_fits_a_phone(page: Page, server: LiveServer) -> None:
    """Picture, state and figures are on the first screen, above the buttons."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{server.url}/?debug=1&auto=mirror")
    phase(page, "live")
    playing(page)
    buttons = page.locator(".controls").bounding_box()
    assert buttons is not None
    for part in ("#video", "#state", "#latency", "#fps", "#skew", "#graph"):
        box = page.locator(part).bounding_box()
        assert box is not None and box["y"] >= 0 and box["y"] + box["height"] <= buttons["y"], part


@pytest.mark.parametrize("width", [320, 390, 768, 1440])
def test_nothing_sticks_out_sideways(page: Page, server: LiveServer, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(server.url)
    page.wait_for_selector("#people button")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator("#start").bounding_box()
    assert box is not None and box["height"] >= 40  # a thumb finds it
