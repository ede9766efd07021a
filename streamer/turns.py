"""Does somebody speak? webrtcvad's frame decisions with hysteresis, so that the state neither flickers nor misses a word.

Sans-I/O. Speech is on after 60 ms of voice within 100 ms, and off after 400 ms without any.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import webrtcvad

from model.geometry import MODEL_RATE

_FRAME = MODEL_RATE * 20 // 1000
_AGGRESSIVENESS = 2
_ON_VOICED, _ON_WINDOW = 3, 5  # frames of 20 ms
_OFF_FRAMES = 20
_QUIET_RMS = 60.0  # about -55 dBFS: webrtcvad hears voice in faint hiss


class TurnDetector:
    """Feed int16 at 16 kHz in any portions; read `speaking`."""

    def __init__(self) -> None:
        self._vad = webrtcvad.Vad(_AGGRESSIVENESS)
        self._rest = np.zeros(0, dtype=np.int16)
        self._recent: deque[bool] = deque(maxlen=_ON_WINDOW)
        self._unvoiced = _OFF_FRAMES
        self.speaking = False

    def push(self, samples_16k: np.ndarray) -> None:
        samples = np.concatenate((self._rest, samples_16k))
        whole = len(samples) // _FRAME * _FRAME
        for frame in samples[:whole].reshape(-1, _FRAME):
            self._decide(self._is_voice(frame))
        self._rest = samples[whole:]

    def _is_voice(self, frame: np.ndarray) -> bool:
        rms = float(np.sqrt(np.mean(frame.astype(np.float32) ** 2)))
        return rms > _QUIET_RMS and bool(self._vad.is_speech(frame.tobytes(), MODEL_RATE))

    def _decide(self, voiced: bool) -> None:
        self._recent.append(voiced)
        self._unvoiced = 0 if voiced else self._unvoiced + 1
        if sum(self._recent) >= _ON_VOICED:
            self.speaking = True
        elif self._unvoiced >= _OFF_FRAMES:
            self.speaking = False
