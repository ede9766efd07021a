"""Which session's chunk goes to the worker, and when: earliest deadline first over all sessions.

Sans-I/O: times are passed in. A session has at most one chunk at the worker and one waiting; a newer one takes the
place of the waiting one. A waiting chunk is *ready* when its audio is complete (or will not get more complete), and
*expired* when it could no longer be shown: it is dropped then, so that a late session catches up instead of falling
behind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class ChunkRequest:
    """One chunk to generate; times in seconds of the loop's clock."""

    session: str
    epoch: int
    chunk_index: int
    ready_s: float
    deadline_s: float  # its first frame is shown
    expires_s: float  # its last frame is over


@dataclass(frozen=True, slots=True)
class Decision:
    submit: list[ChunkRequest]
    expired: list[ChunkRequest]


class Scheduler:
    """The waiting and the running chunk of each session."""

    def __init__(self) -> None:
        self._waiting: dict[str, ChunkRequest] = {}
        self._running: set[str] = set()

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def offer(self, request: ChunkRequest) -> ChunkRequest | None:
        """Puts a chunk on the list and returns the one it replaces."""
        replaced = self._waiting.get(request.session)
        self._waiting[request.session] = request
        return replaced

    def expedite(self, session: str, chunk_index: int, now_s: float) -> None:
        """The audio of this chunk is complete before its time."""
        request = self._waiting.get(session)
        if request is not None and request.chunk_index == chunk_index and request.ready_s > now_s:
            self._waiting[session] = replace(request, ready_s=now_s)

    def interrupt(self, session: str, epoch: int) -> ChunkRequest | None:
        """Drops a waiting chunk of an older epoch."""
        request = self._waiting.get(session)
        return self._waiting.pop(session) if request is not None and request.epoch < epoch else None

    def finished(self, session: str) -> None:
        """The worker answered, whatever the answer was."""
        self._running.discard(session)

    def remove(self, session: str) -> None:
        self._waiting.pop(session, None)
        self._running.discard(session)

    def lost(self) -> None:
        """The worker died: nothing runs any more."""
        self._running.clear()

    def take(self, now_s: float, step_s: float, room: int) -> Decision:
        """What to submit now, at most `room` chunks, and what is too late for a step that lasts `step_s`."""
        submit: list[ChunkRequest] = []
        expired: list[ChunkRequest] = []
        for request in sorted(self._waiting.values(), key=lambda request: request.deadline_s):
            if now_s + step_s >= request.expires_s:
                expired.append(self._waiting.pop(request.session))
            elif request.ready_s <= now_s and request.session not in self._running and len(submit) < room:
                submit.append(self._waiting.pop(request.session))
                self._running.add(request.session)
        return Decision(submit, expired)

    def next_wakeup_s(self) -> float | None:
        """When `take` should be called next without any other event; None while all wait for the worker."""
        times = [request.ready_s for request in self._waiting.values() if request.session not in self._running]
        return min(times, default=None)
