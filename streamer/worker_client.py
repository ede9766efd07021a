"""The media process's end of the worker: starts it, talks to it without threads, starts a new one when it dies.

Replies arrive through `loop.add_reader`; messages are small (see `worker_messages`), so no write blocks. Everything
that concerns sessions is handed to one `WorkerListener`. A slot is taken with a request and given back with its
answer; when the worker dies all slots are free again, because nobody else can write to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import time
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import NamedTuple, Protocol

import numpy as np

from model.geometry import Geometry
from streamer import worker_messages as msg
from streamer.admission import StepTimes
from streamer.arena import Arena
from streamer.config import WorkerConfig
from streamer.worker import main as worker_main

logger = logging.getLogger(__name__)

WARMUP_REPEATS = 8
STOP_TIMEOUT_S = 1.0
QUICK_DEATH_S = 10.0  # a worker that lived shorter than this is started again only after a pause
MAX_PAUSE_S = 10.0


class WorkerListener(Protocol):
    """Who wants to know what the worker did; called on the event loop."""

    def worker_ready(self) -> None: ...
    def worker_lost(self, reason: str) -> None: ...
    def worker_unusable(self, reason: str) -> None: ...
    def session_opened(self, session: str) -> None: ...
    def frames_ready(self, reply: msg.Frames, frames: np.ndarray) -> None: ...
    def step_dropped(self, reply: msg.Dropped) -> None: ...
    def request_failed(self, reply: msg.Failed) -> None: ...


class Launched(NamedTuple):
    """A worker process on its way, and our end of its pipe."""

    process: SpawnProcess
    connection: Connection


def launch(config: WorkerConfig) -> Launched:
    """Starts the process; needs no event loop, so that a server can load its model while it imports everything else."""
    context = multiprocessing.get_context("spawn")
    parent_end, child_end = context.Pipe()
    process = context.Process(target=worker_main, args=(child_end, config), name="livemimic-worker", daemon=True)
    process.start()
    child_end.close()
    return Launched(process, parent_end)


class WorkerClient:
    """One worker process and its shared arena."""

    def __init__(self, config: WorkerConfig, listener: WorkerListener) -> None:
        self._config = config
        self._listener = listener
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None
        self._arena: Arena | None = None
        self._geometry: Geometry | None = None
        self._in_flight: dict[int, float] = {}  # slot -> when it was sent
        self._timer: asyncio.TimerHandle | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._started_s = 0.0
        self._num_quick_deaths = 0
        self._stopping = False
        self.ready = False
        self.num_restarts = 0
        self.load_s = 0.0
        self.step_times = StepTimes()

    @property
    def geometry(self) -> Geometry:
        assert self._geometry is not None, "the worker has not told its geometry yet"
        return self._geometry

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def num_free_slots(self) -> int:
        return self._arena.num_free if self._arena is not None and self.ready else 0

    def start(self, launched: Launched | None = None) -> None:
        """Starts the process, or takes over a launched one; `worker_ready` follows once it has loaded and measured the model."""
        self._process, self._connection = launched or launch(self._config)
        self._started_s = time.monotonic()
        asyncio.get_running_loop().add_reader(self._connection.fileno(), self._on_readable)

    def open(self, session: str, portrait: np.ndarray, seed: int) -> bool:
        """Asks for the first state of a session; False when no slot is free."""
        slot = self._take_slot()
        if slot is None:
            return False
        assert self._arena is not None
        self._arena.write_portrait(slot, portrait)
        self._send(msg.Open(session, slot, seed))
        return True

    def step(
        self,
        session: str,
        epoch: int,
        chunk_index: int,
        base_chunk: int,
        audio: np.ndarray,
        activity: str,
        deadline_s: float,
    ) -> bool:
        """Asks for one chunk; `audio` is int16 [step_samples_16k]. False when no slot is free."""
        slot = self._take_slot()
        if slot is None:
            return False
        assert self._arena is not None
        self._arena.write_audio(slot, audio)
        self._send(msg.Step(session, epoch, chunk_index, base_chunk, activity, deadline_s, slot))
        return True

    def interrupt(self, session: str, epoch: int) -> None:
        self._send(msg.Interrupt(session, epoch))

    def close_session(self, session: str) -> None:
        self._send(msg.Close(session))

    async def stop(self) -> None:
        """Closes the pipe, waits for the process and kills it after a second; frees the shared memory."""
        self._stopping = True
        for timer in (self._timer, self._watchdog):
            if timer is not None:
                timer.cancel()
        self._disconnect()
        if self._process is not None:
            await self._reap(self._process)
        if self._arena is not None:
            self._arena.close()
            self._arena = None

    async def _reap(self, process: SpawnProcess) -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(process.sentinel, ended.set)
        try:
            await asyncio.wait_for(ended.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            logger.warning("the worker did not end within %.1f s and is killed", STOP_TIMEOUT_S)
            process.kill()
        finally:
            loop.remove_reader(process.sentinel)
        process.join(STOP_TIMEOUT_S)
        process.close()
        self._process = None

    def _take_slot(self) -> int | None:
        if self._arena is None or not self.ready:
            return None
        slot = self._arena.take()
        if slot is not None:
            self._in_flight[slot] = time.monotonic()
            if self._watchdog is None:
                timeout_s = self._config.answer_timeout_s
                self._watchdog = asyncio.get_running_loop().call_later(timeout_s, self._check_answers)
        return slot

    def _send(self, request: msg.Request) -> None:
        if self._connection is None:
            return
        # A broken pipe is no news here: the reader sees the same death and handles it in one place.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send(request)

    def _check_answers(self) -> None:
        self._watchdog = None
        if not self._in_flight or self._process is None:
            return
        timeout_s = self._config.answer_timeout_s
        waited_s = time.monotonic() - min(self._in_flight.values())
        if waited_s >= timeout_s:
            logger.error("the worker has not answered for %.1f s and is killed", waited_s)
            self._process.kill()
            return
        self._watchdog = asyncio.get_running_loop().call_later(timeout_s - waited_s, self._check_answers)

    def _on_readable(self) -> None:
        try:
            while self._connection is not None and self._connection.poll():
                self._on_reply(self._connection.recv())
        except (EOFError, OSError):
            self._on_death()

    def _on_reply(self, reply: msg.Reply) -> None:
        match reply:
            case msg.Frames():
                assert self._arena is not None
                frames = self._arena.read_frames(reply.slot)
                self._free(reply.slot)
                self.step_times.record(reply.batch, reply.step_ms)
                self._listener.frames_ready(reply, frames)
            case msg.Dropped():
                self._free(reply.slot)
                self._listener.step_dropped(reply)
            case msg.Failed():
                self._free(reply.slot)
                self._listener.request_failed(reply)
            case msg.Opened():
                self._free(reply.slot)
                self._listener.session_opened(reply.session)
            case msg.Loaded():
                self._on_loaded(reply)
            case msg.Warmed():
                self._on_warmed(reply)
            case msg.LoadFailed():
                self._stopping = True
                self._listener.worker_unusable(reply.error)

    def _free(self, slot: int) -> None:
        assert self._arena is not None
        self._in_flight.pop(slot, None)
        self._arena.give_back(slot)

    def _on_loaded(self, reply: msg.Loaded) -> None:
        if self._arena is None:
            self._geometry = reply.geometry
            self._arena = Arena(reply.geometry, self._config.num_slots)
        self._arena.reset()
        self._in_flight.clear()
        self.load_s = reply.load_s
        self._send(msg.Attach(self._arena.name, self._arena.num_slots))
        self._send(msg.Warmup(WARMUP_REPEATS, self._config.max_batch))

    def _on_warmed(self, reply: msg.Warmed) -> None:
        self.step_times.load(reply.step_ms)
        self.ready = True
        logger.info(
            "worker ready: loaded in %.1f s, one step %.0f ms (p95 %.0f ms) for %d ms of video",
            self.load_s, self.step_times.p50_ms, self.step_times.p95_ms, self.geometry.chunk_ms,
        )  # fmt: skip
        self._listener.worker_ready()

    def _disconnect(self) -> None:
        if self._connection is not None:
            asyncio.get_running_loop().remove_reader(self._connection.fileno())
            self._connection.close()
            self._connection = None
        self.ready = False

    def _on_death(self) -> None:
        self._disconnect()
        self._in_flight.clear()
        if self._stopping or self._process is None:
            return
        self._process.join(STOP_TIMEOUT_S)  # its end of the pipe is closed already: it is dying or dead
        reason = f"the worker process ended with exit code {self._process.exitcode}"
        lived_s = time.monotonic() - self._started_s
        self._num_quick_deaths = self._num_quick_deaths + 1 if lived_s < QUICK_DEATH_S else 0
        pause_s = min(MAX_PAUSE_S, 0.5 * 2**self._num_quick_deaths) if self._num_quick_deaths > 1 else 0.0
        logger.error("%s after %.1f s; a new one starts in %.1f s", reason, lived_s, pause_s)
        self.num_restarts += 1
        self._timer = asyncio.get_running_loop().call_later(pause_s, self.start)
        self._listener.worker_lost(reason)
