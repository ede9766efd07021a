"""The fixed schedule of one session: when a chunk's audio is complete, when it is shown, when a unit is sent.

Sans-I/O, seconds of the loop's clock. `origin_s` is the moment of input sample 0. A live microphone is complete only
when the chunk and its look-ahead have been spoken; pushed speech is known before, so an agent session waits for
nothing but the model and answers 240 ms sooner.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from model.geometry import FPS, FRAME_SAMPLES_48K, MEDIA_RATE, Geometry


@dataclass(frozen=True, slots=True)
class Schedule:
    """`lead_s` passes between a chunk's first sample and its submission, `delay_s` until it is shown."""

    geometry: Geometry
    origin_s: float
    lead_s: float
    slack_s: float
    delay_s: float

    @classmethod
    def starting_at(cls, start_s: float, geometry: Geometry, *, live_input: bool, slack_s: float, allowance_s: float) -> Schedule:
        """Unit 0 is sent at `start_s`."""
        lead_s = (geometry.chunk_ms + geometry.lookahead_ms) / 1000 if live_input else 0.0
        slack_s = slack_s if live_input else 0.0
        delay_s = lead_s + slack_s + allowance_s
        return cls(geometry, start_s - delay_s, lead_s, slack_s, delay_s)

    def later(self, shift_s: float) -> Schedule:
        return replace(self, origin_s=self.origin_s + shift_s)

    @property
    def chunk_s(self) -> float:
        return self.geometry.chunk_ms / 1000

    def complete_s(self, chunk_index: int) -> float:
        """All audio of the chunk has been spoken."""
        return self.origin_s + chunk_index * self.chunk_s + self.lead_s

    def ready_s(self, chunk_index: int) -> float:
        """The chunk is submitted even if packets are still missing."""
        return self.complete_s(chunk_index) + self.slack_s

    def deadline_s(self, chunk_index: int) -> float:
        return self.origin_s + self.delay_s + chunk_index * self.chunk_s

    def unit_s(self, unit_index: int) -> float:
        return self.origin_s + self.delay_s + unit_index / FPS

    def unit_at(self, now_s: float) -> int:
        """The unit that should be on screen; negative before the start."""
        return int((now_s - self.origin_s - self.delay_s) * FPS // 1)

    def sample_at(self, now_s: float) -> int:
        """Input sample that is being spoken now."""
        return round((now_s - self.origin_s) * MEDIA_RATE)

    def chunk_start_sample(self, chunk_index: int) -> int:
        return chunk_index * self.geometry.chunk_frames * FRAME_SAMPLES_48K

    def samples_needed(self, chunk_index: int) -> int:
        """End of what the model hears for this chunk, at 48 kHz."""
        return self.chunk_start_sample(chunk_index + 1) + self.geometry.lookahead_ms * MEDIA_RATE // 1000
