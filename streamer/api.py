"""The HTTP application: routes, error shape, body limits, the demo pages."""

from __future__ import annotations

from fastapi import FastAPI, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST

from streamer import events, http_errors, routes_portraits, routes_sessions
from streamer.body_limit import BodyLimit
from streamer.config import version
from streamer.errors import NotFound
from streamer.portrait_store import MAX_PORTRAIT_BYTES
from streamer.runtime import Runtime
from streamer.speech_file import MAX_SPEECH_BYTES

PAGES = {"/": "index.html", "/kiosk": "kiosk.html", "/presenter": "presenter.html"}
BODY_LIMITS = {"/v1/portraits": MAX_PORTRAIT_BYTES, "/v1/sessions/[^/]+/speak": MAX_SPEECH_BYTES}


def create_app(runtime: Runtime) -> FastAPI:
    """The routes over a runtime that somebody else starts and stops."""
    app = FastAPI(title="livemimic", version=version(), docs_url=None, redoc_url=None)
    app.state.runtime = runtime
    http_errors.install(app, runtime.metrics)
    app.include_router(routes_portraits.routes)
    app.include_router(routes_sessions.routes)
    app.include_router(events.routes)
    _add_health(app, runtime)
    _add_pages(app, runtime)
    app.add_middleware(BodyLimit, limits=BODY_LIMITS)
    if runtime.config.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(runtime.config.cors_origins), allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"], expose_headers=["Retry-After"],
        )  # fmt: skip
    return app


def _add_health(app: FastAPI, runtime: Runtime) -> None:
    @app.get("/healthz", tags=["health"])
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"])
    async def readyz() -> JSONResponse:
        if runtime.ready:
            return JSONResponse({"status": "ready"})
        return http_errors.error_response(503, "not_ready", "the model is being loaded", "try again in a moment", {"Retry-After": "1"})

    @app.get("/metrics", tags=["health"], response_class=Response)
    async def metrics() -> Response:
        runtime.sessions.update_metrics()
        return Response(runtime.metrics.render(runtime.dispatcher.client.pid), media_type=CONTENT_TYPE_LATEST)


def _add_pages(app: FastAPI, runtime: Runtime) -> None:
    folder = runtime.config.demo_dir
    app.mount("/static", StaticFiles(directory=folder, check_dir=False), name="static")

    def add(path: str, file_name: str) -> None:
        @app.get(path, include_in_schema=False)
        async def page() -> FileResponse:
            if not (folder / file_name).is_file():
                raise NotFound("page_missing", f"the demo page {file_name} is not installed", "the API works without it")
            return FileResponse(folder / file_name, headers={"Cache-Control": "no-cache"})

    for path, file_name in PAGES.items():
        add(path, file_name)
