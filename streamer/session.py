"""One conversation: the feed that makes media units, the pacer that sends them at fixed times, the peer, the events.

Runs on the event loop only. A session ends for one reason, reported once through `end` to the registry, which then
calls `close`: its peer is gone, nobody gives a sign of life, it never connected, or a task of it failed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import numpy as np

from streamer.activity import Activity, Mode
from streamer.config import SessionConfig
from streamer.dispatch import Dispatcher
from streamer.errors import Conflict, LivemimicError, WorkerLost
from streamer.event_hub import EventHub
from streamer.feed import Feed
from streamer.media import MediaUnit, draw_barcode
from streamer.metrics import Metrics
from streamer.pacer import Pacer
from streamer.schedule import Schedule
from streamer.session_stats import SessionStats
from streamer.sync_meter import TimedPeer
from streamer.trace import Trace

logger = logging.getLogger(__name__)

REPORT_S = 0.5
OPEN_TIMEOUT_S = 10.0


class Session:
    """Create it, `await start()`, then `answer` an offer."""

    def __init__(
        self,
        *,
        session_id: str,
        mode: Mode,
        portrait_name: str,
        portrait: np.ndarray,
        seed: int,
        config: SessionConfig,
        dispatcher: Dispatcher,
        metrics: Metrics,
        end: Callable[[Session, str], None],
    ) -> None:
        self.session_id = session_id
        self.mode = mode
        self.portrait_name = portrait_name
        self.geometry = dispatcher.client.geometry
        self.events = EventHub()
        self.stats = SessionStats()
        self.peer: TimedPeer | None = None
        self._num_peers = 0
        self.created_s = self.alive_s = time.monotonic()
        self.feed = Feed(
            session_id=session_id, mode=mode, portrait=portrait, seed=seed, dispatcher=dispatcher, stats=self.stats,
            on_error=self._on_feed_error,
        )  # fmt: skip
        self._config = config
        self._step_times = dispatcher.client.step_times
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._end = end
        self._pacer: Pacer | None = None
        self._player: asyncio.Task[None] | None = None
        self._trace = Trace(config.trace_dir, session_id) if config.trace_dir is not None else None
        self._tasks: set[asyncio.Task[None]] = set()
        self._shown: Activity = "idle"
        self._interrupt_called_s: float | None = None
        self._counted = 0, 0  # frames repeated and dropped late that the metrics know of
        self._closed = False

    @property
    def played_frame(self) -> int:
        return self._pacer.played if self._pacer is not None else -1

    @property
    def connected(self) -> bool:
        return self._pacer is not None

    async def start(self) -> None:
        """Prepares the avatar; raises what is wrong with the portrait or the worker."""
        self._dispatcher.add(self.feed)
        try:
            await asyncio.wait_for(asyncio.shield(self.feed.prepared), OPEN_TIMEOUT_S)
        except TimeoutError:
            raise WorkerLost("worker_slow", "the model did not open the portrait in time", "try again") from None
        self._emit_state()
        self._spawn(self._report())

    async def answer(self, sdp: str, type_: str) -> tuple[str, str]:
        """Answers the peer's offer; after a refused one another may be tried."""
        if self.peer is None:
            self._num_peers += 1
            self.peer = TimedPeer(
                ice_servers=list(self._config.ice_servers), geometry=self.geometry, on_mic=self._on_mic,
                on_state=partial(self._on_peer_state, self._num_peers), on_alive=self.touch, on_skew=self.stats.skew,
                session_id=self.session_id,
            )  # fmt: skip
        peer = self.peer
        try:
            return await peer.answer(sdp, type_)
        except Conflict:
            raise
        except BaseException:
            self.peer = None
            await peer.close()
            raise

    def touch(self) -> None:
        """A sign of life from the client."""
        self.alive_s = time.monotonic()

    def interrupt(self, origin: str) -> tuple[int, int]:
        """Silence from the next unit on. Returns the epoch and the last played frame."""
        called_s, played = time.monotonic(), self.played_frame
        epoch = self.feed.interrupt(played)
        if self.connected:
            self._interrupt_called_s = called_s
        self._metrics.interrupts.labels(origin).inc()
        if self._trace is not None:
            self._trace.interrupt(epoch, played, called_s, origin)
        self.events.emit({"type": "interrupted", "epoch": epoch, "played_frame": played, "origin": origin})
        return epoch, played

    def status(self) -> dict[str, Any]:
        return {
            "session_id": self.session_id,
            "mode": self.mode,
            "portrait": self.portrait_name,
            "state": self._shown,
            "connected": self.connected,
            "age_s": round(time.monotonic() - self.created_s, 1),
            "geometry": {"width": self.geometry.width, "height": self.geometry.height, "fps": self.geometry.fps},
            "stats": self.stats_event(),
        }

    def stats_event(self) -> dict[str, Any]:
        playout, pacer, peer = self.feed.playout, self._pacer, self.peer
        delay_ms = pacer.schedule.delay_s * 1000 if pacer is not None else 0.0
        return {
            "type": "stats",
            "fps": self.stats.fps(time.monotonic()),
            "latency_ms": {
                "queue": self.stats.queue_ms,
                "step": self.stats.step_ms,
                "playout_delay": round(delay_ms, 1),
            },
            "skew_ms": self.stats.skew_summary_ms,
            "send_late_ms": self.stats.send_late_ms,
            "epoch": self.feed.epoch,
            "repeated": playout.repeated,
            "late_dropped": playout.late_dropped,
            "skipped": pacer.num_skipped if pacer is not None else 0,
            "bitrate_kbps": peer.bitrate_kbps if peer is not None else None,
            "rtt_ms": peer.rtt_ms if peer is not None else None,
            "played_frame": self.played_frame,
        }

    async def close(self, reason: str) -> None:
        """Frees everything; idempotent, takes at most what the peer's own bound allows."""
        if self._closed:
            return
        self._closed = True
        logger.info("session %s: ends (%s) after %.1f s", self.session_id, reason, time.monotonic() - self.created_s)
        self.events.close(reason)
        self.feed.close()
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.peer is not None:
            await self.peer.close()
        if self._trace is not None:
            self._trace.close(self.status() | {"reason": reason})

    def _on_mic(self, mic_index: int, samples: np.ndarray) -> None:
        if self.feed.hear(mic_index, samples, self._shown):
            self.interrupt("barge_in")

    def _on_peer_state(self, peer_number: int, state: str) -> None:
        if self.peer is None or peer_number != self._num_peers:
            return  # a peer whose offer was refused is being closed
        self.touch()
        if state == "connected" and self._player is None:
            self._player = self._spawn(self._play())
        elif state in ("failed", "closed") and not self._closed:
            self._end(self, f"peer_{state}")

    async def _play(self) -> None:
        await asyncio.wait_for(self.feed.first_frames.wait(), OPEN_TIMEOUT_S)
        schedule = Schedule.starting_at(
            time.monotonic(), self.geometry, live_input=self.mode == "mirror", slack_s=self._config.mic_slack_ms / 1000,
            allowance_s=self._step_times.allowance_ms() / 1000,
        )  # fmt: skip
        schedule = schedule.later(self._dispatcher.start_shift_s(self.session_id, schedule.ready_s(0)))
        self._pacer = Pacer(schedule, self.feed.playout.next_unit, self._send)
        logger.info("session %s: plays, %.0f ms behind its input", self.session_id, schedule.delay_s * 1000)
        self.feed.begin(schedule)
        await self._pacer.run()

    async def _send(self, unit: MediaUnit, due_s: float) -> None:
        assert self.peer is not None
        if self._config.barcode and unit.frame is not None:
            draw_barcode(unit.frame, unit.index)
        await self.peer.send(unit)
        now_s = time.monotonic()
        self.stats.sent(now_s, due_s)
        self._metrics.units.inc()
        self._metrics.send_late.observe(max(0.0, now_s - due_s))
        if self._interrupt_called_s is not None and unit.epoch == self.feed.epoch:
            self._metrics.interrupt_latency.observe(now_s - self._interrupt_called_s)
            self._interrupt_called_s = None
        if self._trace is not None:
            self._trace.unit(unit.index, unit.epoch, unit.frame is None, now_s, unit.audio)
        activity = self.feed.activity_at(unit.index // self.geometry.chunk_frames)
        if activity is not None and activity != self._shown:
            self._shown = activity
            self._emit_state()

    async def _report(self) -> None:
        """Statistics every half second, and the end of a session that nobody attends any more."""
        next_s = time.monotonic()
        while True:
            next_s += REPORT_S
            await asyncio.sleep(next_s - time.monotonic())
            now_s = time.monotonic()
            if self.connected:
                self.events.emit(self.stats_event())
                self._count_frames()
                if now_s - self.alive_s > self._config.heartbeat_ttl_s:
                    self._end(self, "heartbeat_lost")
            elif now_s - self.created_s > self._config.connect_ttl_s:
                self._end(self, "never_connected")

    def _count_frames(self) -> None:
        repeated, late = self.feed.playout.repeated, self.feed.playout.late_dropped
        self._metrics.repeated.inc(repeated - self._counted[0])
        self._metrics.late.inc(late - self._counted[1])
        self._counted = repeated, late

    def _emit_state(self) -> None:
        self.events.emit({"type": "state", "state": self._shown, "epoch": self.feed.epoch})

    def _on_feed_error(self, error: LivemimicError, fatal: bool) -> None:
        self.events.emit({"type": "error", "error": error_body(error)})
        if fatal:
            self._end(self, error.code)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)
        return task

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("session %s: a task failed", self.session_id, exc_info=task.exception())
            self._end(self, "internal_error")


def error_body(error: LivemimicError) -> dict[str, str]:
    """The one shape of an error, in answers and in events."""
    return {"code": error.code, "message": error.message, "hint": error.hint}
