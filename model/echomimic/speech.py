"""Speech features of both variants from transformers' wav2vec2, which is imported only when one is made.

preview hears the last layer at 50 Hz. flash resamples the convolutions' output to the video's 25 Hz before the transformer, and
hears all its layers; they are collected by hooks, because what the encoder returns changed between transformers 4 and 5.
Legend: S samples, L steps, C channels, F video frames.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.echomimic.audio_tokens import flash_windows, to_frame_rate
from model.echomimic.framing import FPS
from model.echomimic.loudness import normalise_loudness

RATE_HZ = 16000
SAMPLES_PER_FRAME = RATE_HZ // FPS


def make_wav2vec(**config: Any) -> nn.Module:
    """An untrained encoder of the given widths."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    return Wav2Vec2Model(Wav2Vec2Config(**config)).eval()


def input_values(samples: np.ndarray) -> Tensor:
    """Zero mean and unit variance over the whole clip, [1, S]."""
    x = samples.astype(np.float32)
    return torch.from_numpy((x - x.mean()) / np.sqrt(x.var() + 1e-7))[None]


def preview_features(wav2vec: nn.Module, samples: np.ndarray) -> Tensor:
    """[1, L, C], two steps a video frame."""
    return wav2vec(input_values(samples)).last_hidden_state


def flash_input(samples: np.ndarray, num_frames: int) -> Tensor:
    """At the published loudness, cut to the frames, normalised."""
    return input_values(normalise_loudness(samples, RATE_HZ)[: num_frames * SAMPLES_PER_FRAME])


def conv_features(wav2vec: Any, values_1S: Tensor) -> Tensor:
    return wav2vec.feature_extractor(values_1S).transpose(1, 2)


def layer_features(wav2vec: Any, features_1FC: Tensor) -> Tensor:
    """Outputs of all transformer layers, [F, layers, C]."""
    outputs: list[Tensor] = []

    def keep(module: nn.Module, args: Any, out: Any) -> None:
        outputs.append(out[0] if isinstance(out, tuple) else out)

    handles = [layer.register_forward_hook(keep) for layer in wav2vec.encoder.layers]
    try:
        wav2vec.encoder(wav2vec.feature_projection(features_1FC)[0])
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(outputs, dim=2)[0]


def flash_features(wav2vec: nn.Module, samples: np.ndarray, num_frames: int) -> Tensor:
    """[1, F, 5, layers, C]."""
    features = to_frame_rate(conv_features(wav2vec, flash_input(samples, num_frames)), num_frames)
    return flash_windows(layer_features(wav2vec, features))[None]
