"""/v1/portraits: list, fetch, upload with a preflight report, delete."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from streamer.portrait_store import MAX_PORTRAIT_BYTES, portrait_url
from streamer.runtime import Running
from streamer.uploads import FILE_FORM, uploaded_file

routes = APIRouter(prefix="/v1/portraits", tags=["portraits"])


@routes.get("")
async def list_portraits(runtime: Running) -> dict[str, Any]:
    return {"portraits": runtime.portraits.listing()}


@routes.get("/{name}.png", response_class=Response)
async def picture(name: str, runtime: Running) -> Response:
    portrait = await runtime.portraits.get(name)
    return Response(portrait.png, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})


@routes.post("", status_code=201, openapi_extra=FILE_FORM)
async def upload(request: Request, runtime: Running) -> dict[str, Any]:
    async with uploaded_file(request, MAX_PORTRAIT_BYTES) as file:
        name, report = await runtime.portraits.add(await file.read())
    return {"name": name, "url": portrait_url(name), "report": report}


@routes.delete("/{name}", status_code=204, response_class=Response)
async def delete(name: str, runtime: Running) -> Response:
    runtime.portraits.delete(name)
    return Response(status_code=204)
