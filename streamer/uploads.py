"""Reads the one file of a multipart form. Called after the caller is authorised: strangers fill no disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request, UploadFile
from starlette.datastructures import UploadFile as StarletteUploadFile

from streamer.errors import BadInput, TooLarge

UPLOAD_TIMEOUT_S = 120.0

# What FastAPI would derive from a File() parameter; the body is read by hand, so the documentation is too.
FILE_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}


@asynccontextmanager
async def uploaded_file(request: Request, max_bytes: int) -> AsyncIterator[UploadFile | StarletteUploadFile]:
    """The form field `file`, spooled to disk when large; gone when the block ends."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise BadInput("not_a_form", "the body is no multipart form", "send the file as form field 'file'")
    try:
        form = await asyncio.wait_for(request.form(max_files=1, max_fields=8), UPLOAD_TIMEOUT_S)
    except TimeoutError:
        raise BadInput("upload_too_slow", f"the upload took longer than {UPLOAD_TIMEOUT_S:.0f} s", "try again") from None
    try:
        file = form.get("file")
        if not isinstance(file, StarletteUploadFile):
            raise BadInput("file_missing", "the form has no file in the field 'file'", "name the field 'file'")
        if file.size is not None and file.size > max_bytes:
            raise TooLarge("file_too_large", f"the file is larger than {max_bytes} bytes", "send a smaller one")
        yield file
    finally:
        await form.close()
