"""All open sessions: admission, tokens, look-up, and the one place where a session ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from streamer.activity import Mode
from streamer.config import ServeConfig
from streamer.dispatch import Dispatcher
from streamer.errors import NotFound, SessionFull
from streamer.metrics import Metrics
from streamer.portrait_store import PortraitStore
from streamer.session import Session
from streamer.tokens import SessionToken, new_session_id

logger = logging.getLogger(__name__)

NOT_READY_RETRY_S = 2


@dataclass(slots=True)
class _Entry:
    token: SessionToken
    created_s: float
    session: Session | None = None  # None while its portrait is being prepared


class SessionRegistry:
    """Sessions by id. A place is taken before anything slow happens, so that two requests cannot share the last one."""

    def __init__(
        self,
        config: ServeConfig,
        dispatcher: Dispatcher,
        portraits: PortraitStore,
        metrics: Metrics,
        after_end: Callable[[], None],
    ) -> None:
        self._config = config
        self._dispatcher = dispatcher
        self._portraits = portraits
        self._metrics = metrics
        self._after_end = after_end
        self._entries: dict[str, _Entry] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._draining = False

    @property
    def sessions(self) -> list[Session]:
        return [entry.session for entry in self._entries.values() if entry.session is not None]

    async def create(self, mode: Mode, portrait_name: str | None, seed: int) -> tuple[Session, str]:
        """A new session and its token. Raises SessionFull, NotFound for the portrait, BadInput when it is refused."""
        name = self._portraits.check(portrait_name)
        self._admit()
        session_id, now_s = new_session_id(), time.monotonic()
        text, token = SessionToken.issue(self._config.session.token_ttl_s, now_s)
        self._entries[session_id] = entry = _Entry(token, now_s)
        try:
            portrait = await self._portraits.get(name)
            session = Session(
                session_id=session_id, mode=mode, portrait_name=name, portrait=portrait.pixels, seed=seed,
                config=self._config.session, dispatcher=self._dispatcher, metrics=self._metrics, end=self._on_end,
            )  # fmt: skip
            entry.session = session
            await session.start()
        except BaseException:
            await self.end(session_id, "refused")
            raise
        self._metrics.opened.inc()
        logger.info("session %s: created, %s, portrait %s", session_id, mode, name)
        return session, text

    def get(self, session_id: str, token: str | None) -> Session:
        """The session, if the token is its own."""
        entry = self._entries.get(session_id)
        if entry is None or entry.session is None:
            raise NotFound("session_unknown", "there is no such session", "it may have ended: create a new one")
        now_s = time.monotonic()
        if entry.session.connected:
            # The token of a running session ages from its last sign of life, whatever kind that was.
            entry.token.extend(entry.session.alive_s)
        entry.token.check(token, now_s)
        entry.session.touch()
        return entry.session

    async def end(self, session_id: str, reason: str) -> None:
        entry = self._entries.pop(session_id, None)
        if entry is None or entry.session is None:
            return
        await entry.session.close(reason)
        self._metrics.closed.labels(reason).inc()
        self._after_end()

    async def close_all(self, reason: str) -> None:
        """Ends every session; new ones are refused from now on."""
        self._draining = True
        await asyncio.gather(*(self.end(session_id, reason) for session_id in list(self._entries)), *self._closing)

    def update_metrics(self) -> None:
        sessions, now_s = self.sessions, time.monotonic()
        connected = [session for session in sessions if session.connected]
        self._metrics.sessions.set(len(sessions))
        self._metrics.fps.set(sum(session.stats.fps(now_s) for session in connected) / max(1, len(connected)))
        self._metrics.skew.set(max((session.stats.skew_summary_ms["p95"] for session in connected), default=0.0) / 1000)
        if self._dispatcher.client.ready:
            admission = self._dispatcher.admission
            self._metrics.capacity.set(admission.capacity())
            self._metrics.load.set(admission.load(len(sessions)))

    def _admit(self) -> None:
        try:
            if self._draining or not self._dispatcher.ready.is_set():
                raise SessionFull("not_ready", "the model is not ready yet", "try again in a moment", retry_after_s=NOT_READY_RETRY_S)
            self._dispatcher.admission.check(len(self._entries), self._retry_after_s())
        except SessionFull as error:
            self._metrics.refused.labels(error.code).inc()
            raise

    def _retry_after_s(self) -> float | None:
        """When the first session that nobody connected to will be freed."""
        ttl_s, now_s = self._config.session.connect_ttl_s, time.monotonic()
        waiting = [
            entry.created_s + ttl_s - now_s for entry in self._entries.values() if entry.session is None or not entry.session.connected
        ]
        return max(1.0, min(waiting)) if waiting else None

    def _on_end(self, session: Session, reason: str) -> None:
        task = asyncio.create_task(self.end(session.session_id, reason))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
