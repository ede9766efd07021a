"""Numbers of one session, for its `stats` events and for the benchmarks. Sans-I/O, bounded memory."""

from __future__ import annotations

from collections import deque

from model.geometry import FPS
from streamer.admission import percentile

_SKEW_WINDOW = 10 * FPS
_RATE_WINDOW_S = 2.0


class SessionStats:
    """Filled by the session as things happen; times in seconds of the loop's clock."""

    def __init__(self) -> None:
        self._sent_s: deque[float] = deque(maxlen=4 * FPS)
        self._late_ms: deque[float] = deque(maxlen=_SKEW_WINDOW)
        self._skew_ms: deque[float] = deque(maxlen=_SKEW_WINDOW)
        self._queue_ms: deque[float] = deque(maxlen=60)
        self._step_ms: deque[float] = deque(maxlen=60)

    def sent(self, now_s: float, due_s: float) -> None:
        self._sent_s.append(now_s)
        self._late_ms.append(max(0.0, now_s - due_s) * 1000)

    def skew(self, skew_ms: float) -> None:
        """Picture and sound of one unit left this far apart."""
        self._skew_ms.append(skew_ms)

    def chunk(self, waited_ms: float, step_ms: float) -> None:
        """A chunk came back `waited_ms` after it was submitted, `step_ms` of which the model worked."""
        self._queue_ms.append(max(0.0, waited_ms - step_ms))
        self._step_ms.append(step_ms)

    def fps(self, now_s: float) -> float:
        """Units sent per second over the last two seconds: shorter, and one late unit would make two wrong values."""
        return sum(1 for sent_s in self._sent_s if now_s - sent_s <= _RATE_WINDOW_S) / _RATE_WINDOW_S

    @property
    def skew_summary_ms(self) -> dict[str, float]:
        """Video minus audio send lateness over the last 10 s; `p95` of the absolute value."""
        return {
            "p50": round(percentile(self._skew_ms, 0.5), 2),
            "p95": round(percentile((abs(value) for value in self._skew_ms), 0.95), 2),
        }

    @property
    def send_late_ms(self) -> float:
        return round(percentile(self._late_ms, 0.95), 2)

    @property
    def queue_ms(self) -> float:
        return round(percentile(self._queue_ms, 0.5), 1)

    @property
    def step_ms(self) -> float:
        return round(percentile(self._step_ms, 0.5), 1)
