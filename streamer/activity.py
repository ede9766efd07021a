"""What the avatar does (idle, listening, speaking), and when the user interrupts it.

Sans-I/O. Mirror mode follows a voice detector on the microphone's time line. In agent mode the avatar speaks while
pushed speech with any energy is left, pauses between words included, and the microphone only tells whether the user
talks.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np

from model.geometry import MODEL_RATE

Mode = Literal["mirror", "agent"]
Activity = Literal["idle", "listening", "speaking"]

BARGE_IN_MS = 200
_QUIET_PEAK = 200  # of 32767: below this pushed audio is a pause, -44 dBFS
_HOLD_MS = 400


class VoiceDetector(Protocol):
    """`streamer.turns.TurnDetector`."""

    @property
    def speaking(self) -> bool: ...
    def push(self, samples_16k: np.ndarray) -> None: ...


class AvatarActivity:
    """`input_voice` hears the time line, `user_voice` the microphone of an agent session."""

    def __init__(self, mode: Mode, input_voice: VoiceDetector, user_voice: VoiceDetector) -> None:
        self._mode = mode
        self._input_voice = input_voice
        self._user_voice = user_voice
        self._quiet_ms = float(_HOLD_MS)
        self._user_ms = 0.0

    @property
    def user_speaking(self) -> bool:
        return self._user_voice.speaking

    def of_chunk(self, samples_16k: np.ndarray, *, has_pushed_speech: bool) -> Activity:
        """The activity of the next chunk; `samples_16k` is its audio without the look-ahead."""
        self._input_voice.push(samples_16k)
        if has_pushed_speech:
            loud = int(np.abs(samples_16k.astype(np.int32)).max(initial=0)) >= _QUIET_PEAK
            self._quiet_ms = 0.0 if loud else self._quiet_ms + len(samples_16k) * 1000 / MODEL_RATE
            if self._quiet_ms < _HOLD_MS:
                return "speaking"
        elif self._mode == "mirror" and self._input_voice.speaking:
            return "speaking"
        return "listening" if self._mode == "agent" and self._user_voice.speaking else "idle"

    def hear_user(self, samples_16k: np.ndarray, *, avatar_speaking: bool) -> bool:
        """Feeds the microphone of an agent session; True once when the user barges in."""
        self._user_voice.push(samples_16k)
        if not (self._user_voice.speaking and avatar_speaking):
            self._user_ms = 0.0
            return False
        before_ms = self._user_ms
        self._user_ms += len(samples_16k) * 1000 / MODEL_RATE
        return before_ms < BARGE_IN_MS <= self._user_ms

    def interrupted(self) -> None:
        self._quiet_ms = float(_HOLD_MS)
        self._user_ms = 0.0
