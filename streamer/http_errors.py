"""Every failure of the HTTP API in one shape: {"error": {"code", "message", "hint"}}."""

from __future__ import annotations

import logging
import math
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from model.errors import ModelError
from streamer.errors import Busy, LivemimicError
from streamer.metrics import Metrics

logger = logging.getLogger(__name__)

_HINTS = {404: "GET /openapi.json lists all paths", 405: "GET /openapi.json lists the methods of each path"}


def error_response(status: int, code: str, message: str, hint: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message, "hint": hint}}, status, headers)


def livemimic_response(error: LivemimicError) -> JSONResponse:
    headers: dict[str, str] = {}
    if isinstance(error, Busy):
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return error_response(error.status, error.code, error.message, error.hint, headers)


def _validation_message(error: RequestValidationError) -> str:
    parts = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]
    return "; ".join(parts[:5])


def install(app: FastAPI, metrics: Metrics) -> None:
    """Registers the handlers; every answer is counted by its code."""

    @app.exception_handler(LivemimicError)
    async def on_livemimic(request: Request, error: LivemimicError) -> JSONResponse:
        metrics.errors.labels(error.code).inc()
        return livemimic_response(error)

    @app.exception_handler(ModelError)
    async def on_model(request: Request, error: ModelError) -> JSONResponse:
        metrics.errors.labels(error.code).inc()
        return error_response(HTTPStatus.UNPROCESSABLE_ENTITY, error.code, error.message, error.hint)

    @app.exception_handler(RequestValidationError)
    async def on_validation(request: Request, error: RequestValidationError) -> JSONResponse:
        metrics.errors.labels("invalid_request").inc()
        return error_response(422, "invalid_request", _validation_message(error), "GET /openapi.json describes the request")

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> JSONResponse:
        phrase = HTTPStatus(error.status_code).phrase
        code = phrase.lower().replace(" ", "_")
        metrics.errors.labels(code).inc()
        message = f"{request.method} {request.url.path}: {error.detail or phrase}"
        return error_response(error.status_code, code, message, _HINTS.get(error.status_code, ""), dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> JSONResponse:
        metrics.errors.labels("internal_error").inc()
        return error_response(500, "internal_error", "the server failed on this request", "its log says why")
