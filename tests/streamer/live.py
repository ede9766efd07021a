"""A real server in its own process with the tiny pipeline, and a real aiortc client, for the end-to-end tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import httpx
import numpy as np
import websockets
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

START_TIMEOUT_S = 15.0
RATE = 48_000
LOUD = 1500  # peak above which sound counts as sound


class LiveServer:
    """`python -m tests.streamer.serve_tiny` with options, on a free port; a subclass may run another module."""

    module: tuple[str, ...] = ("tests.streamer.serve_tiny",)
    start_timeout_s = START_TIMEOUT_S

    def __init__(self, *options: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", *self.module, *options],
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        banner = self.process.stdout.readline()
        found = re.search(r"http://\S+", banner)
        if found is None:
            self.process.kill()
            raise RuntimeError(banner + self.process.communicate()[0])
        self.url = found.group()
        # A pipe that nobody empties blocks the server's log after 64 kB, and with it the server.
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read_output, daemon=True)
        self._reader.start()

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            self._lines.extend(self.process.stdout)

    def wait_ready(self) -> None:
        deadline_s = time.monotonic() + self.start_timeout_s
        while httpx.get(f"{self.url}/readyz", timeout=self.start_timeout_s).status_code != 200:
            if time.monotonic() > deadline_s:
                raise TimeoutError("the server does not get ready")
            time.sleep(0.05)

    def metric(self, name: str) -> float:
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(rf"{name}(\{{.*\}})? ", line))

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait_end(self, timeout_s: float = 5.0) -> tuple[int, float, str]:
        """Exit status, seconds it took, and what was printed."""
        started_s = time.monotonic()
        status = self.process.wait(timeout_s)
        seconds = time.monotonic() - started_s
        self._reader.join(timeout_s)
        return status, seconds, "".join(self._lines)

    def stop(self) -> str:
        if self.process.poll() is None:
            self.signal()
        try:
            return self.wait_end()[2]
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@contextlib.contextmanager
def serving(*options: str, **environment: str) -> Iterator[LiveServer]:
    server = LiveServer(*options, **environment)
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


class Microphone(MediaStreamTrack):
    """Silence, or a tone while `loud` is set, in real time."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.loud = False
        self._index = 0
        self._started_s: float | None = None
        self._tone = voice_like(1.0)

    async def recv(self) -> av.AudioFrame:
        now_s = time.monotonic()
        if self._started_s is None:
            self._started_s = now_s
        due_s = self._started_s + self._index / RATE
        if due_s > now_s:
            await asyncio.sleep(due_s - now_s)
        samples = np.zeros(960, dtype=np.int16)
        if self.loud:
            samples = self._tone[np.arange(self._index, self._index + 960) % len(self._tone)]
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._index, Fraction(1, RATE)
        self._index += 960
        return frame


def voice_like(seconds: float, rate: int = RATE) -> np.ndarray:
    """int16 buzz of 130 Hz with formants and a syllable rhythm: a voice detector takes it for speech."""
    t = np.arange(int(seconds * rate)) / rate
    harmonics = sum(np.sin(2 * np.pi * 130 * k * t) / (1 + abs(130 * k - 600) / 300) for k in range(1, 24))
    wave = harmonics * (0.75 + 0.25 * np.sin(2 * np.pi * 4 * t))
    return (wave / np.abs(wave).max() * 14000).astype(np.int16)


@dataclass
class Seen:
    """What arrived at the client: (when, value) pairs; luma of the face, peak of the sound."""

    luma: list[tuple[float, int]] = field(default_factory=list)
    peak: list[tuple[float, int]] = field(default_factory=list)

    def frames_between(self, start_s: float, stop_s: float) -> int:
        return sum(1 for when_s, _ in self.luma if start_s <= when_s < stop_s)


class Client:
    """One viewer: creates a session, connects a peer, collects what comes."""

    def __init__(self, url: str, *, mode: str = "mirror", portrait: str | None = None) -> None:
        self.url = url
        self.http = httpx.AsyncClient(base_url=url, timeout=10.0)
        self.microphone = Microphone()
        self.seen = Seen()
        self.mode = mode
        self.portrait = portrait
        self.session: dict[str, Any] = {}
        self.peer: RTCPeerConnection | None = None
        self.connect_s = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def path(self) -> str:
        return f"/v1/sessions/{self.session['session_id']}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.session['token']}"}

    async def create(self) -> None:
        body = {"mode": self.mode} | ({"portrait": self.portrait} if self.portrait else {})
        response = await self.http.post("/v1/sessions", json=body)
        assert response.status_code == 201, response.text
        self.session = response.json()

    async def make_offer(self) -> dict[str, str]:
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.peer.on("track", self._on_track)
        self.peer.addTrack(self.microphone)
        self.peer.addTransceiver("video", direction="recvonly")
        await self.peer.setLocalDescription(await self.peer.createOffer())
        return {"sdp": self.peer.localDescription.sdp, "type": "offer"}

    async def connect(self) -> None:
        if not self.session:
            await self.create()
        offer = await self.make_offer()
        response = await self.http.post(f"{self.path}/offer", json=offer, headers=self.headers)
        assert response.status_code == 200, response.text
        assert self.peer is not None
        self.connect_s = time.monotonic()
        await self.peer.setRemoteDescription(RTCSessionDescription(**response.json()))

    async def interrupt(self) -> dict[str, int]:
        response = await self.http.post(f"{self.path}/interrupt", headers=self.headers)
        assert response.status_code == 200, response.text
        result: dict[str, int] = response.json()
        return result

    async def status(self) -> dict[str, Any]:
        response = await self.http.get(self.path, headers=self.headers)
        assert response.status_code == 200, response.text
        result: dict[str, Any] = response.json()
        return result

    @contextlib.asynccontextmanager
    async def events(self) -> AsyncIterator[Events]:
        url = f"{self.url.replace('http', 'ws', 1)}{self.path}/events?token={self.session['token']}"
        async with websockets.connect(url) as socket:
            events = Events(socket)
            try:
                yield events
            finally:
                events.task.cancel()
                await asyncio.gather(events.task, return_exceptions=True)

    async def until_frames(self, count: int, timeout_s: float = 5.0) -> None:
        async with asyncio.timeout(timeout_s):
            while len(self.seen.luma) < count:
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        if self.session:
            with contextlib.suppress(httpx.HTTPError):
                await self.http.delete(self.path, headers=self.headers)
        await self.vanish()

    async def vanish(self) -> None:
        """Leaves without a word to the API."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.peer is not None:
            await self.peer.close()
        self.microphone.stop()
        await self.http.aclose()

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._tasks.append(asyncio.create_task(self._watch(track) if track.kind == "video" else self._listen(track)))

    async def _watch(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                assert isinstance(frame, av.VideoFrame)
                plane = np.frombuffer(frame.planes[0], dtype=np.uint8)
                row = 64 * frame.planes[0].line_size
                self.seen.luma.append((time.monotonic(), int(plane[row + 100 : row + 150].mean())))

    async def _listen(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                assert isinstance(frame, av.AudioFrame)
                self.seen.peak.append((time.monotonic(), int(np.abs(frame.to_ndarray().astype(np.int32)).max())))


class Events:
    """The WebSocket of a session, read all the time."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.socket = socket
        self.received: list[dict[str, Any]] = []
        self._changed = asyncio.Event()
        self.task = asyncio.create_task(self._read())

    async def send(self, message: dict[str, Any] | bytes) -> None:
        await self.socket.send(message if isinstance(message, bytes) else json.dumps(message))

    async def speak(self, samples: np.ndarray, rate: int) -> None:
        """A whole utterance, faster than real time."""
        await self.send({"type": "start", "sample_rate": rate})
        for piece in np.array_split(samples, max(1, len(samples) // 4000)):
            await self.send(piece.tobytes())
        await self.send({"type": "end"})

    async def wait(self, type_: str, timeout_s: float = 5.0, **values: object) -> dict[str, Any]:
        """Takes the first event of this type with these values."""
        async with asyncio.timeout(timeout_s):
            while True:
                for event in self.received:
                    if event["type"] == type_ and all(event.get(key) == value for key, value in values.items()):
                        self.received.remove(event)
                        return event
                self._changed.clear()
                await self._changed.wait()

    async def error_code(self) -> str:
        return str((await self.wait("error"))["error"]["code"])

    async def _read(self) -> None:
        async for message in self.socket:
            self.received.append(json.loads(message))
            self._changed.set()
