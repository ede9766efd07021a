"""Events of one session to everybody who listens. A listener that does not read loses the oldest events, never the
server."""

from __future__ import annotations

import asyncio
from typing import Any

Event = dict[str, Any]
QUEUE_LENGTH = 64


class Subscription:
    """A bounded queue of events; `None` ends it."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue(QUEUE_LENGTH)

    def put(self, event: Event | None) -> None:
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(event)

    async def get(self) -> Event | None:
        return await self._queue.get()


class EventHub:
    """Knows the last state, so that a late listener starts with it."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._state: Event | None = None
        self._closed = False

    def subscribe(self) -> Subscription:
        subscription = Subscription()
        if self._state is not None:
            subscription.put(self._state)
        if self._closed:
            subscription.put(None)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)

    def emit(self, event: Event) -> None:
        if event["type"] == "state":
            self._state = event
        for subscription in self._subscriptions:
            subscription.put(event)

    def close(self, reason: str) -> None:
        self.emit({"type": "bye", "reason": reason})
        self._closed = True
        for subscription in self._subscriptions:
            subscription.put(None)
