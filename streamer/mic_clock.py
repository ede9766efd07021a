"""Puts microphone samples on the session's time line.

Sans-I/O. A microphone counts its own samples; the first packet is taken to end when it arrives. Packets that come
earlier than expected later on show that the first one was late, and a microphone whose crystal runs slow or fast
drifts by some 100 ms an hour: both are repaired by moving the mapping, but only in silence, where no one can hear the
seam.
"""

from __future__ import annotations

from collections import deque

from model.geometry import MEDIA_RATE

_HISTORY = 250  # packets of 20 ms: 5 s
_TOLERANCE = MEDIA_RATE * 15 // 1000


class MicClock:
    """Maps the microphone's sample index to the time line's."""

    def __init__(self) -> None:
        self._offset: int | None = None
        self._lateness: deque[int] = deque(maxlen=_HISTORY)  # samples a packet arrived after its place on the time line
        self.num_moves = 0

    def place(self, mic_index: int, num_samples: int, arrival_sample: int, *, may_move: bool) -> int:
        """Time line index of the packet's first sample; `arrival_sample` is the time line's index of this moment."""
        if self._offset is None:
            self._offset = arrival_sample - num_samples - mic_index
        self._lateness.append(arrival_sample - (self._offset + mic_index + num_samples))
        # The most punctual packet of the last seconds: network jitter only ever adds to it.
        shift = min(self._lateness)
        if may_move and abs(shift) > _TOLERANCE and len(self._lateness) == _HISTORY:
            self._offset += shift
            self._lateness.clear()
            self.num_moves += 1
        return self._offset + mic_index
