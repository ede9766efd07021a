"""Whole conversations: a real server process, a real worker process, real WebRTC clients."""

from __future__ import annotations

import asyncio
import io
import time
import wave
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest
import pytest_asyncio

from tests.streamer.live import LOUD, Client, LiveServer, voice_like
from tests.streamer.tiny_pipeline import QUIET_LUMA

BRIGHT = QUIET_LUMA + 12


def wav(samples: np.ndarray, rate: int) -> bytes:
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", "NONE"))
        file.writeframes(samples.tobytes())
    return data.getvalue()


def first_at(pairs: list[tuple[float, int]], level: int, after_s: float) -> float:
    """When the value first reached the level."""
    return next((when_s for when_s, value in pairs if when_s >= after_s and value >= level), float("inf"))


def last_at(pairs: list[tuple[float, int]], level: int) -> float:
    return max((when_s for when_s, value in pairs if value >= level), default=0.0)


@pytest_asyncio.fixture
async def mirror(server: LiveServer) -> AsyncIterator[Client]:
    client = Client(server.url)
    yield client
    await client.close()


@pytest_asyncio.fixture
async def agent(server: LiveServer) -> AsyncIterator[Client]:
    client = Client(server.url, mode="agent")
    yield client
    await client.close()


async def test_the_idle_face_is_there_at_once(mirror: Client) -> None:
    """The first frame arrives within half a second of the answer, and 25 come every second."""
    await mirror.connect()
    await mirror.until_frames(1)
    assert mirror.seen.luma[0][0] - mirror.connect_s < 0.5
    await asyncio.sleep(2.0)
    start_s = mirror.seen.luma[0][0] + 0.5
    assert 24 <= mirror.seen.frames_between(start_s, start_s + 1.0) <= 26


async def test_lips_and_voice_of_a_mirror_arrive_together(mirror: Client) -> None:
    """A voice at the microphone comes back with the picture that belongs to it, after the announced delay."""
    await mirror.connect()
    await mirror.until_frames(20)
    spoken_s = time.monotonic()
    mirror.microphone.loud = True
    async with asyncio.timeout(3.0):
        while first_at(mirror.seen.luma, BRIGHT, spoken_s) == float("inf"):
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)
    seen_s, heard_s = first_at(mirror.seen.luma, BRIGHT, spoken_s), first_at(mirror.seen.peak, LOUD, spoken_s)
    assert abs(seen_s - heard_s) < 0.17  # the tiny pipeline brightens a whole chunk
    delay_s = (await mirror.status())["stats"]["latency_ms"]["playout_delay"] / 1000
    assert delay_s - 0.05 < heard_s - spoken_s < delay_s + 0.25


async def test_an_agent_speaks_what_is_pushed(agent: Client) -> None:
    """Pushed speech is heard and seen; the states say speaking, then idle."""
    await agent.connect()
    await agent.until_frames(5)
    async with agent.events() as events:
        await events.wait("state", state="idle")
        pushed_s = time.monotonic()
        await events.speak(voice_like(1.0, 24_000), 24_000)
        await events.wait("state", state="speaking")
        await events.wait("state", state="idle")
    heard_s = first_at(agent.seen.peak, LOUD, pushed_s)
    assert heard_s - pushed_s < 0.6
    assert abs(first_at(agent.seen.luma, BRIGHT, pushed_s) - heard_s) < 0.17
    assert last_at(agent.seen.peak, LOUD) - heard_s == pytest.approx(1.0, abs=0.1)


async def test_interrupt_is_silent_at_the_client_within_250_ms(agent: Client) -> None:
    """After an interrupt no more sound comes, what is pushed of the old utterance is dropped, and the next one is heard."""
    await agent.connect()
    await agent.until_frames(5)
    async with agent.events() as events:
        await events.send({"type": "start", "sample_rate": 16000})
        await events.send(voice_like(5.0, 16_000).tobytes())
        await events.wait("state", state="speaking")
        await asyncio.sleep(0.4)
        called_s = time.monotonic()
        result = await agent.interrupt()
        assert result["epoch"] == 1 and result["played_frame"] > 0
        await events.wait("interrupted", epoch=1, played_frame=result["played_frame"])
        await events.send(voice_like(0.5, 16_000).tobytes())
        await asyncio.sleep(0.8)
        assert last_at(agent.seen.peak, LOUD) - called_s < 0.25
        again_s = time.monotonic()
        await events.speak(voice_like(0.4, 16_000), 16_000)
        await asyncio.sleep(0.8)
        assert first_at(agent.seen.peak, LOUD, again_s) - again_s < 0.6
    stats = (await agent.status())["stats"]
    assert stats["epoch"] == 1


async def test_the_user_barges_in(agent: Client) -> None:
    """200 ms of the user's voice stop the avatar, which then listens."""
    await agent.connect()
    await agent.until_frames(5)
    async with agent.events() as events:
        await events.speak(voice_like(6.0, 16_000), 16_000)
        await events.wait("state", state="speaking")
        await asyncio.sleep(0.3)
        spoken_s = time.monotonic()
        agent.microphone.loud = True
        event = await events.wait("interrupted", origin="barge_in")
        assert event["epoch"] == 1
        await events.wait("state", state="listening")
        await asyncio.sleep(0.3)
    assert last_at(agent.seen.peak, LOUD) - spoken_s < 1.0


async def test_speak_plays_a_file(agent: Client) -> None:
    """An uploaded WAV of any rate is decoded and spoken."""
    await agent.connect()
    await agent.until_frames(5)
    body = {"file": ("hello.wav", wav(voice_like(0.5, 22_050), 22_050), "audio/wav")}
    response = await agent.http.post(f"{agent.path}/speak", files=body, headers=agent.headers)
    assert response.status_code == 202
    assert response.json()["duration_s"] == pytest.approx(0.5, abs=0.02)
    sent_s = time.monotonic()
    await asyncio.sleep(0.8)
    assert first_at(agent.seen.peak, LOUD, sent_s) - sent_s < 0.6


async def test_a_file_that_is_interrupted_on_its_way_is_not_spoken(agent: Client) -> None:
    """Whoever pressed stop while it was uploaded does not hear it afterwards."""
    await agent.connect()
    await agent.until_frames(5)
    request = httpx.Request("POST", agent.url, files={"file": ("hello.wav", wav(voice_like(0.5, 16_000), 16_000))})
    body = request.read()

    async def slowly() -> AsyncIterator[bytes]:
        yield body[:1000]
        await asyncio.sleep(0.3)  # on a busy machine the interrupt, on a connection of its own, would overtake the upload's beginning
        await agent.interrupt()
        yield body[1000:]

    headers = agent.headers | {"Content-Type": request.headers["Content-Type"]}
    async with httpx.AsyncClient() as uploader:
        response = await uploader.post(f"{agent.url}{agent.path}/speak", content=slowly(), headers=headers)
    assert (response.status_code, response.json()) == (202, {"duration_s": 0.0})
    await asyncio.sleep(0.6)
    assert max(value for _, value in agent.seen.peak) < LOUD


async def test_stats_come_twice_a_second(mirror: Client, server: LiveServer) -> None:
    """The events carry rate, latency and skew; the same is in the metrics."""
    await mirror.connect()
    await mirror.until_frames(50)
    async with mirror.events() as events:
        await events.send({"type": "ping"})
        await events.wait("pong")
        first = await events.wait("stats")
        second = await events.wait("stats")
    assert set(first["latency_ms"]) == {"queue", "step", "playout_delay"}
    assert second["played_frame"] - first["played_frame"] == pytest.approx(12.5, abs=4)
    assert 23 <= second["fps"] <= 27
    assert abs(second["skew_ms"]["p50"]) < 20
    assert await asyncio.to_thread(server.metric, "livemimic_units_sent_total") > 0


async def test_two_sessions_do_not_mix(server: LiveServer) -> None:
    """The voice of one is neither seen nor heard in the other, though the worker batches them."""
    loud, quiet = Client(server.url), Client(server.url)
    try:
        await asyncio.gather(loud.connect(), quiet.connect())
        await asyncio.gather(loud.until_frames(20), quiet.until_frames(20))
        loud.microphone.loud = True
        await asyncio.sleep(1.2)
        assert max(value for _, value in loud.seen.luma) >= BRIGHT
        assert max(value for _, value in quiet.seen.luma) < BRIGHT
        assert max(value for _, value in quiet.seen.peak) < LOUD
    finally:
        await asyncio.gather(loud.close(), quiet.close())
