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
    """A fresh page; the test fails if anything is written to the console as an error that the test did not expect."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    fresh = context.new_page()
    errors: list[str] = []
    fresh.on("pageerror", lambda error: errors.append(str(error)))
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
    page.wait_for_function("/\\d/.test(document.getElementById('fps').textContent)", timeout=10_000)
    page.click("#stop")
    phase(page, "setup")
    assert not page.is_disabled("#start")


def test_a_sound_file_is_spoken_and_interrupted(page: Page, server: LiveServer, tmp_path: Path) -> None:
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
    second.close()


def test_a_wrong_picture_is_explained(page: Page, server: LiveServer, tmp_path: Path) -> None:
    page.goto(server.url)
    page.wait_for_selector("#people button")
    wrong = tmp_path / "face.png"
    wrong.write_bytes(b"this is no picture")
    page.set_input_files("#portrait", str(wrong))
    page.wait_for_selector("#notice:not([hidden])")
    assert page.inner_text("#notice-title") and page.inner_text("#notice-hint")


@pytest.mark.parametrize("width", [320, 390, 768, 1440])
def test_nothing_sticks_out_sideways(page: Page, server: LiveServer, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(server.url)
    page.wait_for_selector("#people button")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator("#start").bounding_box()
    assert box is not None and box["height"] >= 40  # a thumb finds it
