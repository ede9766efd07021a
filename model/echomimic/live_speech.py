"""Speech features of the live path, from a bounded stretch of sound: every chunk costs the same, in the first minute as in any.

The published encoder hears a whole recording in both directions, normalised over all of it. Live it hears PAST_FRAMES of sound
before the chunk, the chunk, and LOOKAHEAD_FRAMES after it. Half of the look-ahead is what the tokens of the last latent frame
are made of (80 ms in both variants), the other half keeps those away from the end of what the encoder hears.
The mean and variance are the stretch's own, with a floor, so that the noise of a silent room does not become a voice.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from model.echomimic.audio_tokens import flash_windows, to_frame_rate
from model.echomimic.config import Variant
from model.echomimic.speech import SAMPLES_PER_FRAME, conv_features, layer_features

PAST_FRAMES = 48  # 1.92 s
LOOKAHEAD_FRAMES = 4  # 160 ms
NEEDED_FRAMES = 2  # after the last frame of a latent frame: what its tokens look ahead
QUIETEST = 10 ** (-45 / 20)  # root mean square, of 1: what is quieter is not raised to speech

_MODEL_UNIT = 32768.0


class LiveSpeech:
    """Not thread-safe: the features of all layers are read by hooks."""

    def __init__(self, wav2vec: nn.Module, variant: Variant, *, chunk_frames: int, window_frames: int) -> None:
        """`window_frames` video frames (4k + 1) that end with the chunk are what the transformer is told about."""
        if window_frames > PAST_FRAMES + chunk_frames:
            raise ValueError(f"window of {window_frames} frames is longer than what is heard, {PAST_FRAMES + chunk_frames}")
        self._wav2vec = wav2vec
        self._variant = variant
        self._num_frames = PAST_FRAMES + chunk_frames + LOOKAHEAD_FRAMES
        self._window = slice(self._num_frames - LOOKAHEAD_FRAMES - window_frames, self._num_frames - LOOKAHEAD_FRAMES)
        self._device = next(wav2vec.parameters()).device

    @property
    def num_samples(self) -> int:
        """What a call takes: past, chunk and look-ahead at 16 kHz."""
        return self._num_frames * SAMPLES_PER_FRAME

    @property
    def past_samples(self) -> int:
        return PAST_FRAMES * SAMPLES_PER_FRAME

    @torch.inference_mode()
    def __call__(self, samples: np.ndarray) -> Tensor:
        """int16 [num_samples] to the window's features, float32: flash [1, F, 5, layers, C], preview [1, 2 (F + 2), C]."""
        values = torch.from_numpy(self._normalised(samples))[None].to(self._device)
        if self._variant == "flash":
            steps = to_frame_rate(conv_features(self._wav2vec, values), self._num_frames)
            return flash_windows(layer_features(self._wav2vec, steps))[None, self._window]
        features = self._wav2vec(values).last_hidden_state
        return features[:, 2 * self._window.start : 2 * (self._window.stop + NEEDED_FRAMES)]

    @staticmethod
    def _normalised(samples: np.ndarray) -> np.ndarray:
        x = samples.astype(np.float32) / _MODEL_UNIT
        return (x - x.mean()) / max(float(x.std()), QUIETEST)
