"""/v1/sessions: create, offer/answer, interrupt, speak, status, delete."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from model.geometry import MEDIA_RATE
from streamer.runtime import Running
from streamer.session import Session
from streamer.speech_file import MAX_SPEECH_BYTES, decode_speech
from streamer.uploads import FILE_FORM, uploaded_file

MAX_SDP_CHARS = 100_000


class SessionRequest(BaseModel):
    """Without a portrait the first of the list is used."""

    model_config = ConfigDict(extra="forbid")
    portrait: str | None = Field(None, max_length=100)
    mode: Literal["mirror", "agent"] = "mirror"
    seed: int = Field(0, ge=0, le=2**31 - 1)


class Offer(BaseModel):
    sdp: str = Field(max_length=MAX_SDP_CHARS)
    type: Literal["offer"]


class Answer(BaseModel):
    sdp: str
    type: str


def bearer_token(authorization: Annotated[str | None, Header()] = None) -> str | None:
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def authorised(session_id: str, runtime: Running, token: Annotated[str | None, Depends(bearer_token)]) -> Session:
    return runtime.sessions.get(session_id, token)


Authorised = Annotated[Session, Depends(authorised)]
routes = APIRouter(prefix="/v1/sessions", tags=["sessions"])


@routes.post("", status_code=201)
async def create(runtime: Running, body: SessionRequest) -> dict[str, Any]:
    session, token = await runtime.sessions.create(body.mode, body.portrait, body.seed)
    config = runtime.config.session
    return {
        "session_id": session.session_id,
        "token": token,
        "ice_servers": [{"urls": url} for url in config.ice_servers],
        "expires_in_s": config.connect_ttl_s,
        "events_url": f"/v1/sessions/{session.session_id}/events",
        "geometry": session.status()["geometry"],
        "mode": session.mode,
        "portrait": session.portrait_name,
    }


@routes.post("/{session_id}/offer")
async def offer(session: Authorised, body: Offer) -> Answer:
    sdp, type_ = await session.answer(body.sdp, body.type)
    return Answer(sdp=sdp, type=type_)


@routes.post("/{session_id}/interrupt")
async def interrupt(session: Authorised) -> dict[str, int]:
    epoch, played_frame = session.interrupt("api")
    return {"epoch": epoch, "played_frame": played_frame}


@routes.post("/{session_id}/speak", status_code=202, openapi_extra=FILE_FORM)
async def speak(session: Authorised, runtime: Running, request: Request) -> dict[str, float]:
    """How much will be said: nothing when the session was interrupted while the file was on its way."""
    epoch = session.feed.epoch
    async with uploaded_file(request, MAX_SPEECH_BYTES) as file:
        loop = asyncio.get_running_loop()
        samples = await loop.run_in_executor(runtime.decoders, decode_speech, file.file)
    if session.feed.epoch != epoch:
        return {"duration_s": 0.0}
    session.feed.push_speech(samples)
    return {"duration_s": round(len(samples) / MEDIA_RATE, 3)}


@routes.get("/{session_id}")
async def status(session: Authorised) -> dict[str, Any]:
    return session.status()


@routes.delete("/{session_id}", status_code=204, response_class=Response)
async def delete(session: Authorised, runtime: Running) -> Response:
    await runtime.sessions.end(session.session_id, "deleted")
    return Response(status_code=204)
