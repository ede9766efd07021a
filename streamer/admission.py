"""How many sessions fit: measured step times against real time.

Sans-I/O. The load of n sessions is what one batched step of n costs, divided by the time it covers; a new session is
admitted while that stays under 85 %. Sizes that were not measured are interpolated, larger ones extrapolated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from streamer.errors import SessionFull

MAX_LOAD = 0.85
RETRY_AFTER_S = 5  # when nothing is known about the end of any session
_WINDOW = 200


def percentile(values: Iterable[float], fraction: float) -> float:
    """Nearest-rank percentile; 0 for no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))] if ordered else 0.0


class StepTimes:
    """The last step times in milliseconds, per batch size."""

    def __init__(self) -> None:
        self._step_ms: dict[int, deque[float]] = {}

    def record(self, batch: int, step_ms: float) -> None:
        self._step_ms.setdefault(batch, deque(maxlen=_WINDOW)).append(step_ms)

    def load(self, measured: dict[int, list[float]]) -> None:
        """Starts from the result of a warm-up."""
        self._step_ms = {batch: deque(values, maxlen=_WINDOW) for batch, values in measured.items()}

    @property
    def p50_ms(self) -> float:
        return percentile(self._single(), 0.5)

    @property
    def p95_ms(self) -> float:
        return percentile(self._single(), 0.95)

    @property
    def batches(self) -> list[int]:
        """Batch sizes that were measured."""
        return sorted(self._step_ms)

    def _single(self) -> Iterable[float]:
        return self._step_ms.get(1, ())

    def cost_ms(self, num_sessions: int) -> float:
        """Median time of one step for this many sessions."""
        points = [(batch, percentile(self._step_ms[batch], 0.5)) for batch in sorted(self._step_ms)]
        if not points or num_sessions <= 0:
            return 0.0
        if len(points) == 1 or num_sessions <= points[0][0]:
            return points[0][1] * max(1.0, num_sessions / points[0][0])
        upper = next((i for i, (batch, _) in enumerate(points) if i and batch >= num_sessions), len(points) - 1)
        (low_batch, low_ms), (high_batch, high_ms) = points[upper - 1], points[upper]
        slope = max(0.0, high_ms - low_ms) / (high_batch - low_batch)
        return low_ms + slope * (num_sessions - low_batch)

    def allowance_ms(self) -> float:
        """Time a chunk needs from its request to its first frame, with a margin."""
        return self.p95_ms * 1.25 + 20.0


class Admission:
    """Decides whether one more session fits."""

    def __init__(self, step_times: StepTimes, chunk_ms: int, max_sessions: int | None) -> None:
        self._step_times = step_times
        self._chunk_ms = chunk_ms
        self._max_sessions = max_sessions

    def load(self, num_sessions: int) -> float:
        """Share of real time the worker is busy."""
        return self._step_times.cost_ms(num_sessions) / self._chunk_ms

    def capacity(self, limit: int = 1024) -> int:
        """Sessions that fit; the first one always does, however slow the machine is."""
        fits = next((n for n in range(1, limit) if self.load(n + 1) > MAX_LOAD), limit)
        return fits if self._max_sessions is None else min(fits, self._max_sessions)

    def check(self, num_open: int, retry_after_s: float | None = None) -> None:
        """Raises SessionFull when `num_open` sessions leave no room."""
        capacity = self.capacity()
        if num_open >= capacity:
            raise SessionFull(
                "session_full",
                f"the server is full: {num_open} of {capacity} {'session' if capacity == 1 else 'sessions'} in use",
                "try again later, or end another session",
                retry_after_s=RETRY_AFTER_S if retry_after_s is None else retry_after_s,
            )
