"""The WebSocket of a session: events out, pushed speech and interrupts in.

One task reads, one writes; whichever ends first takes the other with it. What a client does wrong comes back to it as
an error event and costs it that one message, never the session.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from streamer.errors import BadInput, LivemimicError
from streamer.event_hub import Subscription
from streamer.runtime import Running
from streamer.session import Session, error_body

logger = logging.getLogger(__name__)

SEND_TIMEOUT_S = 5.0
CLOSE_NORMAL = 1000


routes = APIRouter()


@routes.websocket("/v1/sessions/{session_id}/events")
async def events(websocket: WebSocket, session_id: str, runtime: Running, token: str | None = None) -> None:
    await websocket.accept()
    try:
        session = runtime.sessions.get(session_id, token)
    except LivemimicError as error:
        # Browsers do not show the body of a refused handshake, so the reason comes as an event.
        await _send(websocket, {"type": "error", "error": error_body(error)})
        await websocket.close(4000 + error.status, error.code)
        return
    subscription = session.events.subscribe()
    try:
        await _run(websocket, session, subscription)
    finally:
        session.events.unsubscribe(subscription)


async def _run(websocket: WebSocket, session: Session, subscription: Subscription) -> None:
    reader = asyncio.create_task(_read(websocket, session, subscription))
    writer = asyncio.create_task(_write(websocket, subscription))
    try:
        await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
    finally:
        reader.cancel()
        writer.cancel()
        results = await asyncio.gather(reader, writer, return_exceptions=True)
    for result in results:
        # A client may vanish in the middle of anything; that is not worth a line in the log.
        if isinstance(result, Exception) and not isinstance(result, (WebSocketDisconnect, TimeoutError, RuntimeError)):
            raise result


async def _write(websocket: WebSocket, subscription: Subscription) -> None:
    while (event := await subscription.get()) is not None:
        await _send(websocket, event)
    await websocket.close(CLOSE_NORMAL)


async def _send(websocket: WebSocket, event: dict[str, Any]) -> None:
    await asyncio.wait_for(websocket.send_text(json.dumps(event)), SEND_TIMEOUT_S)


async def _read(websocket: WebSocket, session: Session, subscription: Subscription) -> None:
    while (message := await websocket.receive())["type"] == "websocket.receive":
        session.touch()
        try:
            if (data := message.get("bytes")) is not None:
                session.feed.push_speech(session.feed.pcm.push(data))
            else:
                _on_text(session, subscription, message["text"])
        except LivemimicError as error:
            subscription.put({"type": "error", "error": error_body(error)})
        # Receiving does not suspend while messages are waiting: a flood of them would be worked off in one go.
        await asyncio.sleep(0)


def _on_text(session: Session, subscription: Subscription, text: str) -> None:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise BadInput("bad_json", "the message is no JSON", 'send {"type": ...} or binary audio') from None
    match message:
        case {"type": "ping"}:
            subscription.put({"type": "pong"})
        case {"type": "start"}:
            session.feed.pcm.start(message.get("sample_rate"))
        case {"type": "end"}:
            session.feed.push_speech(session.feed.pcm.end())
        case {"type": "interrupt"}:
            session.interrupt("websocket")
        case _:
            raise BadInput("unknown_message", "the message has no known type", "known are ping, start, end and interrupt")
