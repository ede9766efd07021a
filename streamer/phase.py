"""Where in the 160 ms of a chunk a new session puts its steps, so that they do not wait for those of others.

Sans-I/O. Every session asks for one step a chunk, always at the same phase. Two sessions that ask at the same moment on a
machine without room to batch would both be late by a step for as long as they live; starting one of them up to a chunk
later costs a viewer nothing that can be seen.
"""

from __future__ import annotations

from collections.abc import Iterable

_RESOLUTION_S = 0.01
_TOUCHING_S = 1e-4


def start_shift_s(ready_s: float, others_s: Iterable[float], chunk_s: float, step_s: float) -> float:
    """The smallest delay of the start after which a step of `step_s` collides with nobody's; 0 when there is none.

    `ready_s` and `others_s` are moments at which the sessions ask for a step; only their phase counts.
    """
    others = list(others_s)
    for count in range(round(chunk_s / _RESOLUTION_S)):
        shift_s = count * _RESOLUTION_S
        if all(_distance_s(ready_s + shift_s, other_s, chunk_s) > step_s - _TOUCHING_S for other_s in others):
            return shift_s
    return 0.0


def _distance_s(first_s: float, second_s: float, period_s: float) -> float:
    """Between two phases on a circle."""
    around_s = (first_s - second_s) % period_s
    return min(around_s, period_s - around_s)
