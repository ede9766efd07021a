"""Sends one media unit every 40 ms, at absolute deadlines of the session's schedule.

Never chains sleeps: unit n is due at a time that follows from n alone, so an hour later it is as punctual as at the
start. After a stall of the whole process the units nobody could see any more are skipped, sound and picture together.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from streamer.media import MediaUnit
from streamer.schedule import Schedule

MAX_BACKLOG_S = 0.5


class Pacer:
    """`take(index)` gives the unit, `send(unit, due_s)` delivers it."""

    def __init__(self, schedule: Schedule, take: Callable[[int], MediaUnit], send: Callable[[MediaUnit, float], Awaitable[None]]) -> None:
        self.schedule = schedule
        self._take = take
        self._send = send
        self.played = -1  # index of the last unit taken: nothing can stop it any more
        self.num_skipped = 0

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            index = self._next_index(time.monotonic())
            due_s = self.schedule.unit_s(index)
            delay_s = due_s - time.monotonic()
            if delay_s > 0:
                await asyncio.sleep(delay_s)
            self.played = index
            await self._send(self._take(index), due_s)

    def _next_index(self, now_s: float) -> int:
        index = self.played + 1
        if now_s - self.schedule.unit_s(index) > MAX_BACKLOG_S:
            self.num_skipped += self.schedule.unit_at(now_s) - index
            index = self.schedule.unit_at(now_s)
        return index
