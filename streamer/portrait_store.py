"""The portraits sessions can use: the built-in ones, the one given on the command line, and uploads.

Uploads live in memory, are bounded in number (the oldest goes first) and are not listed: their random name is known to
the uploader only. Examining a picture is slow CPU work and has its own thread; built-in ones are ready as they are.
"""

from __future__ import annotations

import asyncio
import io
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from model.geometry import Geometry
from streamer.errors import Busy, Conflict, NotFound

MAX_UPLOADS = 64
MAX_WAITING = 8  # pictures that are being examined or wait for it: each may be 10 MB
MAX_PORTRAIT_BYTES = 10 * 1024 * 1024
CUSTOM = "custom"  # the portrait of `--portrait FILE`


Report = dict[str, object]


@dataclass(frozen=True, slots=True)
class Portrait:
    """One prepared portrait: uint8 RGB [height, width, 3] and the same as PNG."""

    pixels: np.ndarray
    png: bytes


class PortraitStore:
    """`examine` turns the bytes of a picture file into pixels and a report, or raises with code, message and hint."""

    def __init__(
        self, builtin: Mapping[str, Path], examine: Callable[[bytes], tuple[np.ndarray, Report]], side: int = Geometry().width
    ) -> None:
        self._side = side
        self._paths = dict(builtin)
        self._examine = examine
        self._cache: dict[str, Portrait] = {}
        self._uploads: dict[str, Portrait] = {}
        self._num_waiting = 0
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="portraits")

    @classmethod
    def from_model(cls, side: int = Geometry().width) -> PortraitStore:
        """Square pictures of this many pixels a side, framed around the face."""
        from model.portraits import builtin_portraits, examine

        def examined(data: bytes) -> tuple[np.ndarray, Report]:
            pixels, report = examine(data, side)
            return pixels, report.to_json()

        return cls(builtin_portraits(), examined, side)

    def use_first(self, name_or_file: str) -> None:
        """Makes a built-in portrait or a picture file the first of the list, which is the default of new sessions.

        Raises ValueError for what is neither, and what examining and reading a file raises; to be called at the start.
        """
        if name_or_file not in self._paths:
            path = Path(name_or_file)
            if not path.is_file():
                raise ValueError(f"{name_or_file!r} is neither a file nor one of {', '.join(self._paths)}")
            self._cache[CUSTOM], _ = self._examined(path.read_bytes())
            name_or_file, self._paths[CUSTOM] = CUSTOM, path
        self._paths = {name_or_file: self._paths[name_or_file], **self._paths}

    def listing(self) -> list[dict[str, str]]:
        return [{"name": name, "title": _title(name), "url": portrait_url(name)} for name in self._paths]

    def check(self, name: str | None) -> str:
        """The name to use; None is the first of the list."""
        if name is None and self._paths:
            return next(iter(self._paths))
        if name is None or (name not in self._paths and name not in self._uploads):
            raise NotFound("portrait_unknown", f"there is no portrait {name!r}", "GET /v1/portraits lists them")
        return name

    async def get(self, name: str) -> Portrait:
        self.check(name)
        if name in self._uploads:
            return self._uploads[name]
        if name not in self._cache:
            self._cache[name], _ = await self._run(partial(_builtin, self._paths[name].read_bytes(), self._side))
        return self._cache[name]

    async def add(self, data: bytes) -> tuple[str, Report]:
        """Prepares an uploaded picture; returns its name and the report."""
        if self._num_waiting >= MAX_WAITING:
            raise Busy("portraits_busy", "too many pictures are being examined", "try again in a moment")
        self._num_waiting += 1
        try:
            portrait, report = await self._run(partial(self._examined, data))
        finally:
            self._num_waiting -= 1
        name = f"upload-{secrets.token_hex(12)}"
        self._uploads[name] = portrait
        while len(self._uploads) > MAX_UPLOADS:
            self._uploads.pop(next(iter(self._uploads)))
        return name, report

    def delete(self, name: str) -> None:
        self.check(name)
        if name not in self._uploads:
            raise Conflict("portrait_is_builtin", f"{name!r} belongs to the server", "only uploaded portraits can be deleted")
        del self._uploads[name]

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _examined(self, data: bytes) -> tuple[Portrait, Report]:
        pixels, report = self._examine(data)
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "PNG")
        return Portrait(pixels, png.getvalue()), report

    async def _run(self, work: Callable[[], tuple[Portrait, Report]]) -> tuple[Portrait, Report]:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _builtin(data: bytes, side: int) -> tuple[Portrait, Report]:
    with Image.open(io.BytesIO(data)) as picture:
        pixels = picture.convert("RGB")
    return Portrait(np.asarray(pixels if pixels.width == side else pixels.resize((side, side), Image.Resampling.LANCZOS)), data), {}


def portrait_url(name: str) -> str:
    return f"/v1/portraits/{name}.png"


def _title(name: str) -> str:
    return name.replace("_", " ").replace("-", " ").capitalize()
