"""Pictures sent to /v1/portraits with the real face finder behind it: refused ones say why, a good one comes back framed."""

from __future__ import annotations

import asyncio
import io
import struct
import zlib
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from model.portraits import builtin_portraits
from streamer.api import create_app
from streamer.config import ServeConfig
from streamer.portrait_store import MAX_WAITING, PortraitStore
from streamer.runtime import Runtime


@pytest_asyncio.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """The application without a worker: portraits need none."""
    runtime = Runtime(ServeConfig(), PortraitStore.from_model())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(runtime)), base_url="http://server") as client:
        yield client
    await runtime.stop()


def png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


def huge_png(side: int) -> bytes:
    """A whole PNG of one colour, a few hundred kilobytes that would unpack to gigabytes."""
    packer = zlib.compressobj(9)
    row = bytes(1 + side // 8)
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    parts = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)), (b"IDAT", pixels), (b"IEND", b"")]
    chunks = (struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


WALL = np.random.default_rng(2).integers(80, 120, (300, 400, 3), np.uint8)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"", "not_an_image", id="empty"),
        pytest.param(b"GIF89a, or so it says", "not_an_image", id="no picture"),
        pytest.param(png(Image.fromarray(WALL))[:4000], "not_an_image", id="cut off"),
        pytest.param(png(Image.new("RGB", (1, 1))), "picture_too_small", id="1x1"),
        pytest.param(huge_png(20_000), "picture_too_large", id="20000x20000"),
        pytest.param(png(Image.fromarray(WALL)), "no_face", id="a wall"),
    ],
)
async def test_pictures_that_cannot_be_used(http: httpx.AsyncClient, data: bytes, code: str) -> None:
    """422 with the reason and what to do about it."""
    response = await http.post("/v1/portraits", files={"file": ("me.png", data)})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (422, code)
    assert error["message"] and error["hint"]


async def test_a_good_picture_comes_back_framed_with_a_report(http: httpx.AsyncClient) -> None:
    """Larger and off the centre: the portrait is 256x256, the report says where the face was."""
    path = next(iter(builtin_portraits().values()))
    photo = Image.new("RGB", (900, 700), (120, 130, 140))
    photo.paste(Image.open(path).convert("RGB").resize((512, 512)), (300, 150))
    response = await http.post("/v1/portraits", files={"file": ("me.png", png(photo))})
    assert response.status_code == 201, response.text
    body = response.json()
    left, top, width, height = body["report"]["face"]
    assert 300 < left + width / 2 < 812 and 150 < top + height / 2 < 662
    picture = await http.get(body["url"])
    assert Image.open(io.BytesIO(picture.content)).size == (256, 256)


async def test_a_flood_of_pictures_is_asked_to_come_back(http: httpx.AsyncClient) -> None:
    """Beyond a few waiting pictures the answer is 503 with Retry-After; those that wait are examined all the same."""
    good = next(iter(builtin_portraits().values())).read_bytes()
    posts = [http.post("/v1/portraits", files={"file": ("a.png", good)}) for _ in range(MAX_WAITING + 3)]
    answers = await asyncio.gather(*posts)
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [201] * MAX_WAITING + [503] * 3
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.json()["error"]["code"] == "portraits_busy" and int(refused.headers["Retry-After"]) > 0
