"""Refuses request bodies that are too large, by their declared length or while they stream in.

Pure ASGI, in front of everything: nothing beyond the limit is kept. When a request is answered before its body
has been read, the connection is closed after a moment: at once, the kernel would send a reset instead of the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamer.errors import TooLarge
from streamer.http_errors import livemimic_response

DEFAULT_BYTES = 256 * 1024
_FORM_OVERHEAD = 64 * 1024
_LINGER_S = 0.5
_LINGER_BYTES = 16 << 20


class BodyLimit:
    """`limits`: pattern of the path -> largest payload in bytes; all others get DEFAULT_BYTES."""

    def __init__(self, app: ASGIApp, limits: dict[str, int]) -> None:
        self._app = app
        self._limits = [(re.compile(pattern), size + _FORM_OVERHEAD) for pattern, size in limits.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = next((size for pattern, size in self._limits if pattern.fullmatch(scope["path"])), DEFAULT_BYTES)
        headers = dict(scope["headers"])
        declared = int(headers.get(b"content-length", b"0"))  # the HTTP parser refuses everything but digits
        exchange = _Exchange(limit, declared > 0 or b"transfer-encoding" in headers, receive, send)
        if declared > limit:
            await livemimic_response(_too_large(limit))(scope, receive, exchange.send)
        else:
            await self._app(scope, exchange.receive, exchange.send)


class _Exchange:
    """One request and its answer; knows whether any of the body is still on its way."""

    def __init__(self, limit: int, has_body: bool, receive: Receive, send: Send) -> None:
        self._limit = limit
        self._unread = has_body
        self._receive, self._send = receive, send
        self._received = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self._received += len(message.get("body", b""))
        if self._received > self._limit:
            raise _too_large(self._limit)
        if not message.get("more_body", False):
            self._unread = False
        return message

    async def send(self, message: Message) -> None:
        if self._unread and message["type"] == "http.response.start":
            # Otherwise the server would read and discard the rest, however long it is, to keep the connection.
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        elif self._unread and message["type"] == "http.response.body" and not message.get("more_body"):
            # The body is complete by its Content-Length; only the end of the exchange is held back.
            await self._send({**message, "more_body": True})
            await self._drain()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _drain(self) -> None:
        """Most clients read the answer only after they have sent everything: give those a chance that are almost done."""
        drained = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while drained < _LINGER_BYTES:
                    message = await self._receive()
                    drained += len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return


def _too_large(limit: int) -> TooLarge:
    return TooLarge("body_too_large", f"the request body is larger than {limit} bytes", "send a smaller one")
