"""Memory is given back some time after the last thing was let go, not only after the first."""

from __future__ import annotations

import asyncio
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from streamer import tidy


class Ring:
    """Refers to itself, so that only the cycle collector frees it."""

    def __init__(self) -> None:
        self.me = self


async def test_what_lingers_past_the_first_tidying_is_freed_by_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tidy, "DELAY_S", 0.2)
    with ThreadPoolExecutor(1) as executor:
        tidier = tidy.Tidy(executor)
        tidier.soon()
        await asyncio.sleep(0.1)
        ring = Ring()
        freed = weakref.ref(ring)
        tidier.soon()  # its session ends now, but something holds on to it for a little longer than the first tidying
        await asyncio.sleep(0.15)
        del ring
        assert freed() is not None
        async with asyncio.timeout(2.0):
            while freed() is not None:
                await asyncio.sleep(0.02)
        tidier.stop()
