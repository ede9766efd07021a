"""Speech features of a bounded stretch against the published ones of the same sound."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("transformers", reason="needs the echomimic extra: pip install livemimic[echomimic]")

from model.echomimic.config import Variant  # noqa: E402
from model.echomimic.live_speech import LOOKAHEAD_FRAMES, PAST_FRAMES, LiveSpeech  # noqa: E402
from model.echomimic.speech import flash_features, make_wav2vec, preview_features  # noqa: E402

CHUNK, WINDOW = 8, 21
FRAMES = PAST_FRAMES + CHUNK + LOOKAHEAD_FRAMES


@pytest.fixture(scope="module")
def wav2vec() -> nn.Module:
    torch.manual_seed(0)
    return make_wav2vec(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    ).requires_grad_(False)  # fmt: skip


def voice(num_frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3000, num_frames * 640).astype(np.int16)


@pytest.mark.parametrize("variant", ["preview", "flash"])
def test_a_stretch_gives_the_published_features(wav2vec: nn.Module, variant: Variant) -> None:
    """Of the frames that end with the chunk; the look-ahead is in them, not behind them."""
    speech = LiveSpeech(wav2vec, variant, chunk_frames=CHUNK, window_frames=WINDOW)
    samples = voice(FRAMES)
    assert speech.num_samples == len(samples) and speech.past_samples == PAST_FRAMES * 640
    own = speech(samples)
    sound, end = samples.astype(np.float32) / 32768, FRAMES - LOOKAHEAD_FRAMES
    if variant == "flash":
        expected = flash_features(wav2vec, sound, FRAMES)[:, end - WINDOW : end]
    else:
        expected = preview_features(wav2vec, sound)[:, 2 * (end - WINDOW) : 2 * (end + 2)]
    torch.testing.assert_close(own, expected, atol=1e-4, rtol=1e-4)
    assert own.std() > 0.1


def test_the_noise_of_a_silent_room_stays_quiet(wav2vec: nn.Module) -> None:
    """Normalised it would be as loud as a voice: a hundred times quieter noise, and silence, stay apart from speech."""
    speech = LiveSpeech(wav2vec, "preview", chunk_frames=CHUNK, window_frames=WINDOW)
    heard = [speech._normalised(samples).std() for samples in (voice(FRAMES), voice(FRAMES) // 1000, np.zeros(FRAMES * 640, np.int16))]
    assert heard[0] == pytest.approx(1.0, abs=1e-3) and 0 < heard[1] < 0.03 and heard[2] == 0


def test_a_window_must_lie_within_what_is_heard(wav2vec: nn.Module) -> None:
    with pytest.raises(ValueError, match="window of 61 frames is longer than what is heard, 56"):
        LiveSpeech(wav2vec, "flash", chunk_frames=CHUNK, window_frames=61)
