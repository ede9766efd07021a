"""Between the sessions and the worker: submits what the scheduler decides, hands results to the session they belong to.

Runs on the event loop. One timer for all sessions, no polling: it is set to the moment the next waiting chunk is ready;
every answer of the worker and every new request looks at the list again.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from streamer import worker_messages as msg
from streamer.admission import Admission
from streamer.config import WorkerConfig
from streamer.metrics import Metrics
from streamer.phase import start_shift_s
from streamer.scheduler import ChunkRequest, Scheduler
from streamer.worker_client import WorkerClient

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StepInput:
    """What the model gets for one chunk; `audio` is int16 [step_samples_16k]."""

    base_chunk: int
    audio: np.ndarray
    activity: str


class ChunkConsumer(Protocol):
    """A session, as the dispatcher sees it."""

    session_id: str
    portrait: np.ndarray
    seed: int

    def opened(self) -> None: ...
    def step_input(self, request: ChunkRequest) -> StepInput: ...
    def chunk_expired(self, request: ChunkRequest) -> None: ...
    def chunk_arrived(self, reply: msg.Frames, frames: np.ndarray) -> None: ...
    def chunk_failed(self, error: str) -> None: ...
    def worker_lost(self, reason: str) -> None: ...


class Dispatcher:
    """Implements `WorkerListener`; owns the client and the scheduler."""

    def __init__(self, config: WorkerConfig, metrics: Metrics, max_sessions: int | None) -> None:
        self.client = WorkerClient(config, self)
        self.ready = asyncio.Event()
        self.on_ready: Callable[[], None] | None = None
        self.on_unusable: Callable[[str], None] | None = None
        self._max_sessions = max_sessions
        self._metrics = metrics
        self._scheduler = Scheduler()
        self._consumers: dict[str, ChunkConsumer] = {}
        self._to_open: list[str] = []
        self._phases_s: dict[str, float] = {}  # a moment at which each playing session asks for a step
        self._timer: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None

    @property
    def admission(self) -> Admission:
        return Admission(self.client.step_times, self.client.geometry.chunk_ms, self._max_sessions)

    def add(self, consumer: ChunkConsumer) -> None:
        """Opens the session at the worker; `consumer.opened` follows."""
        self._consumers[consumer.session_id] = consumer
        self.reopen(consumer.session_id)

    def reopen(self, session_id: str) -> None:
        """Starts the session's state anew from its portrait."""
        if session_id not in self._to_open:
            self._to_open.append(session_id)
        self._wake()

    def start_shift_s(self, session_id: str, ready_s: float) -> float:
        """How much later this session should start than now, given when it would ask for a step."""
        step_s = self.client.step_times.p95_ms / 1000
        chunk_s = self.client.geometry.chunk_ms / 1000
        shift_s = start_shift_s(ready_s, self._phases_s.values(), chunk_s, step_s)
        self._phases_s[session_id] = ready_s + shift_s
        return shift_s

    def remove(self, session_id: str) -> None:
        self._phases_s.pop(session_id, None)
        self._scheduler.remove(session_id)
        if session_id in self._to_open:
            self._to_open.remove(session_id)
        if self._consumers.pop(session_id, None) is not None:
            self.client.close_session(session_id)

    def offer(self, request: ChunkRequest) -> None:
        self._scheduler.offer(request)
        self._wake()

    def expedite(self, session_id: str, chunk_index: int, now_s: float) -> None:
        self._scheduler.expedite(session_id, chunk_index, now_s)
        self._wake()

    def interrupt(self, session_id: str, epoch: int) -> None:
        self._scheduler.interrupt(session_id, epoch)
        self.client.interrupt(session_id, epoch)

    async def stop(self) -> None:
        for handle in (self._timer, self._soon):
            if handle is not None:
                handle.cancel()
        await self.client.stop()

    def _wake(self) -> None:
        # Never at once: sessions offer their next chunk while the list is being worked on.
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._soon = None
        if not self.client.ready:
            return
        while self._to_open:
            consumer = self._consumers[self._to_open[0]]
            if not self.client.open(consumer.session_id, consumer.portrait, consumer.seed):
                return  # no slot: the next answer of the worker brings us back here
            self._to_open.pop(0)
        loop = asyncio.get_running_loop()
        step_s = self.client.step_times.p50_ms / 1000
        decision = self._scheduler.take(loop.time(), step_s, self.client.num_free_slots)
        for request in decision.submit:
            step = self._consumers[request.session].step_input(request)
            self.client.step(
                request.session,
                request.epoch,
                request.chunk_index,
                step.base_chunk,
                step.audio,
                step.activity,
                request.deadline_s,
            )
        for request in decision.expired:
            self._metrics.expired.inc()
            self._consumers[request.session].chunk_expired(request)
        self._set_timer(loop)

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        wakeup_s = self._scheduler.next_wakeup_s()
        self._timer = None if wakeup_s is None else loop.call_at(wakeup_s, self._pump)

    def worker_ready(self) -> None:
        self._metrics.restarts.set(self.client.num_restarts)
        self.ready.set()
        # What is loaded now stays: a collection need not walk it again (20 instead of 6 ms).
        gc.collect()
        gc.freeze()
        if self.on_ready is not None:
            self.on_ready()
        for session_id in self._consumers:
            self.reopen(session_id)

    def worker_lost(self, reason: str) -> None:
        self.ready.clear()
        self._scheduler.lost()
        for consumer in list(self._consumers.values()):
            consumer.worker_lost(reason)

    def worker_unusable(self, reason: str) -> None:
        if self.on_unusable is not None:
            self.on_unusable(reason)

    def session_opened(self, session: str) -> None:
        if session in self._consumers:
            self._consumers[session].opened()
        self._wake()

    def frames_ready(self, reply: msg.Frames, frames: np.ndarray) -> None:
        self._metrics.step.observe(reply.step_ms / 1000)
        self._metrics.batch.observe(reply.batch)
        self._scheduler.finished(reply.session)
        if reply.session in self._consumers:
            self._consumers[reply.session].chunk_arrived(reply, frames)
        self._wake()

    def step_dropped(self, reply: msg.Dropped) -> None:
        self._scheduler.finished(reply.session)
        self._wake()

    def request_failed(self, reply: msg.Failed) -> None:
        self._scheduler.finished(reply.session)
        if reply.session in self._consumers:
            self._consumers[reply.session].chunk_failed(reply.error)
        self._wake()
