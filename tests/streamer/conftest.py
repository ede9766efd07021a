"""One live server for all end-to-end tests of a run that do not end it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.streamer.live import LiveServer, serving


@pytest.fixture(scope="session")
def server() -> Iterator[LiveServer]:
    with serving("--max-sessions", "8", "--cors-origin", "https://example.org") as server:
        yield server
