"""A microphone's RTP packets to samples with absolute index: in order, at once, holes left as holes.

Sans-I/O apart from the codec. aiortc's own jitter buffer delays every packet by 80 ms and, after one loss, by 280 ms for good. Here a
packet goes out the moment it is next in order; a missing one is waited for until three later ones are there, then its samples stay
a hole that the time line conceals, and the delay is back at zero.
"""

from __future__ import annotations

from collections.abc import Callable

import av
import numpy as np

from model.geometry import MEDIA_RATE

_GIVE_UP_AFTER = 3
_RESTART = 200  # packets apart: the sender has started anew


class MicReceiver:
    """`on_samples(index, samples)`: 48 kHz sample index since the first packet, int16 mono."""

    def __init__(self, on_samples: Callable[[int, np.ndarray], None]) -> None:
        self._on_samples = on_samples
        self._decoder = self._open()
        self._waiting: dict[int, tuple[int, bytes]] = {}
        self._next: int | None = None
        self._first_timestamp = 0
        self._last_timestamp = 0
        self.lost = 0
        self.undecodable = 0

    def push(self, sequence: int, timestamp: int, payload: bytes) -> None:
        """One Opus packet. Sequence numbers are 16 bits and timestamps 32 bits wide, both wrap (RFC 3550, section 5.1)."""
        if self._next is None:
            self._next = sequence
            self._first_timestamp = self._last_timestamp = timestamp
        ahead = _signed(sequence - self._next, 16)
        if abs(ahead) > _RESTART:
            self._waiting.clear()
            self._next = sequence
        elif ahead < 0:
            return  # came after it was given up, or twice
        self._waiting[sequence] = (timestamp, payload)
        self._release()

    def _release(self) -> None:
        assert self._next is not None
        while self._waiting:
            if self._next not in self._waiting:
                if len(self._waiting) < _GIVE_UP_AFTER:
                    return
                self.lost += 1
            else:
                self._decode(*self._waiting.pop(self._next))
            self._next = (self._next + 1) & 0xFFFF

    def _decode(self, timestamp: int, payload: bytes) -> None:
        unwrapped = self._last_timestamp + _signed(timestamp - (self._last_timestamp & 0xFFFFFFFF), 32)
        self._last_timestamp = unwrapped
        try:
            frames = self._decoder.decode(av.Packet(payload))
        except av.FFmpegError:
            self.undecodable += 1
            return
        index = unwrapped - self._first_timestamp
        for frame in frames:
            samples = frame.to_ndarray().reshape(-1)
            if index >= 0:
                self._on_samples(index, samples)
            index += len(samples)

    @staticmethod
    def _open() -> av.AudioCodecContext:
        decoder = av.CodecContext.create("libopus", "r")
        assert isinstance(decoder, av.AudioCodecContext)
        decoder.sample_rate, decoder.format, decoder.layout = MEDIA_RATE, "s16", "mono"
        return decoder


def _signed(difference: int, bits: int) -> int:
    half = 1 << (bits - 1)
    return (difference + half) % (1 << bits) - half
