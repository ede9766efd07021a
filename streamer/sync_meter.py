"""Measures, on the sending side, how far picture and sound of one unit are apart when they leave.

The moment that counts is when aiortc takes a packet from its track: after encoding and queueing, right before RTP. Both
halves of a unit are due at the same time, so the difference of their moments is the difference of their lateness.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import av

from model.geometry import FRAME_SAMPLES_48K
from streamer.media import VIDEO_TICKS
from streamer.peer import Peer
from streamer.tracks import PacketTrack

_WAITING = 50  # units of which only one half has left


class SyncMeter:
    """Sans-I/O. `on_skew(ms)` is called once a unit: positive when the picture left after its sound."""

    def __init__(self, on_skew: Callable[[float], None]) -> None:
        self._on_skew = on_skew
        self._sent_s: dict[int, tuple[str, float]] = {}

    def left(self, kind: str, pts: int, now_s: float) -> None:
        """A packet of this track left; the second Opus packet of a unit does not count."""
        index, rest = divmod(pts, FRAME_SAMPLES_48K if kind == "audio" else VIDEO_TICKS)
        if rest:
            return
        other = self._sent_s.pop(index, None)
        if other is None:
            self._sent_s[index] = (kind, now_s)
            if len(self._sent_s) > _WAITING:
                self._sent_s.pop(next(iter(self._sent_s)))
        elif other[0] != kind:
            self._on_skew((now_s - other[1]) * (1000 if kind == "video" else -1000))


class _TimedTrack(PacketTrack):
    def __init__(self, kind: str, capacity: int, meter: SyncMeter) -> None:
        super().__init__(kind, capacity)
        self._meter = meter

    async def recv(self) -> av.Packet[Any]:
        packet = await super().recv()
        if packet.pts is not None:
            self._meter.left(self.kind, packet.pts, time.monotonic())
        return packet


class TimedPeer(Peer):
    """A peer whose tracks report to a meter."""

    def __init__(self, *, on_skew: Callable[[float], None], **arguments: Any) -> None:
        super().__init__(**arguments)
        meter = SyncMeter(on_skew)
        self._audio_track, self._video_track = _TimedTrack("audio", 25, meter), _TimedTrack("video", 25, meter)
