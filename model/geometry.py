"""Time and picture geometry shared by the model, the streamer and the offline renderer.

Importable without torch: the media process needs these numbers and must start fast. One *chunk* is one latent frame of the
embedded preset: `chunk_frames` video frames that the network generates together.
"""

from __future__ import annotations

from dataclasses import dataclass

FPS = 25
MODEL_RATE = 16_000
MEDIA_RATE = 48_000
FRAME_SAMPLES_16K = MODEL_RATE // FPS
FRAME_SAMPLES_48K = MEDIA_RATE // FPS


@dataclass(frozen=True, slots=True)
class Geometry:
    """Picture size in pixels, frame rate in Hz, chunk length in frames and audio look-ahead in milliseconds."""

    width: int = 256
    height: int = 256
    fps: int = FPS
    chunk_frames: int = 4
    lookahead_ms: int = 80

    @property
    def chunk_ms(self) -> int:
        return self.chunk_frames * 1000 // self.fps

    @property
    def chunk_samples_16k(self) -> int:
        return self.chunk_frames * FRAME_SAMPLES_16K

    @property
    def lookahead_samples_16k(self) -> int:
        return self.lookahead_ms * MODEL_RATE // 1000

    @property
    def step_samples_16k(self) -> int:
        """Samples one step of the pipeline takes: the chunk's own audio, then the look-ahead."""
        return self.chunk_samples_16k + self.lookahead_samples_16k

    @property
    def i420_shape(self) -> tuple[int, int]:
        return self.height * 3 // 2, self.width
