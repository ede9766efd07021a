"""Speech pushed over the WebSocket: checks the messages and brings 16 or 24 kHz to 48 kHz.

Sans-I/O. An utterance is `start`, any number of binary messages, `end`. An interrupt ends the running utterance: what
its sender still pushes is dropped until the next `start`, or the avatar would go on with the second half of a
sentence. The first 300 ms are held back: a sender in real time is then always ahead of the model, which needs a chunk
and its look-ahead at once; a sender that is faster does not notice.
"""

from __future__ import annotations

import av
import numpy as np
from av.audio.resampler import AudioResampler

from model.geometry import MEDIA_RATE
from streamer.errors import BadInput

SAMPLE_RATES = (16_000, 24_000, 48_000)
MAX_MESSAGE_BYTES = 1 << 20
_PREROLL = MEDIA_RATE * 300 // 1000
_NOTHING = np.zeros(0, dtype=np.int16)


class PcmInput:
    """State of the pushed speech of one session."""

    def __init__(self) -> None:
        self._rate = 0
        self._resampler: AudioResampler | None = None
        self._interrupted = False
        self._held: list[np.ndarray] | None = None  # the beginning of the utterance, until there is enough of it

    def start(self, sample_rate: object) -> None:
        if not isinstance(sample_rate, (int, float)) or sample_rate not in SAMPLE_RATES:
            raise BadInput("bad_sample_rate", f"sample_rate is {sample_rate!r}", f"use one of {', '.join(map(str, SAMPLE_RATES))}")
        self._rate = int(sample_rate)
        self._resampler = AudioResampler(format="s16", layout="mono", rate=MEDIA_RATE)
        self._interrupted = False
        self._held = []

    def push(self, data: bytes) -> np.ndarray:
        """int16 [samples] at 48 kHz to play, possibly empty."""
        if self._interrupted:
            return _NOTHING
        if self._resampler is None:
            raise BadInput(
                "pcm_without_start",
                "audio arrived before a start message",
                'send {"type":"start","sample_rate":16000} first',
            )
        if len(data) % 2:
            raise BadInput(
                "odd_pcm_length",
                f"{len(data)} bytes are no whole number of 16-bit samples",
                "send mono int16, little endian",
            )
        if len(data) > MAX_MESSAGE_BYTES:
            raise BadInput("pcm_too_large", f"{len(data)} bytes in one message", f"send at most {MAX_MESSAGE_BYTES} at a time")
        if not data:
            return _NOTHING
        samples = np.frombuffer(data, dtype="<i2")
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.int16), format="s16", layout="mono")
        frame.sample_rate = self._rate
        return self._hold(_join(self._resampler.resample(frame)))

    def end(self) -> np.ndarray:
        """The rest of the utterance."""
        if self._resampler is None:
            return _NOTHING
        rest = [*(self._held or []), _join(self._resampler.resample(None))]
        self._resampler = self._held = None
        return np.concatenate(rest)

    def interrupt(self) -> None:
        self._interrupted = self._interrupted or self._resampler is not None
        self._resampler = self._held = None

    def _hold(self, samples: np.ndarray) -> np.ndarray:
        if self._held is None:
            return samples
        self._held.append(samples)
        if sum(len(piece) for piece in self._held) < _PREROLL:
            return _NOTHING
        held, self._held = self._held, None
        return np.concatenate(held)


def _join(frames: list[av.AudioFrame]) -> np.ndarray:
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]) if frames else _NOTHING
