"""The streaming audio encoder: chunks give what the whole gives, nothing beyond the look-ahead matters, loudness hardly does."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from model.audio import STEP, AudioEncoder


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    torch.manual_seed(0)
    return AudioEncoder().eval().requires_grad_(False)


def voice(num_samples: int, seed: int = 0) -> torch.Tensor:
    """Harmonics under a wandering envelope [1, num_samples]."""
    rng = np.random.default_rng(seed)
    t = np.arange(num_samples) / 16_000
    tone = sum(np.sin(2 * np.pi * 140 * k * t + rng.uniform(0, 6)) / k for k in range(1, 12))
    envelope = np.interp(t, np.arange(0, t[-1] + 0.2, 0.1), rng.uniform(0.02, 0.3, len(np.arange(0, t[-1] + 0.2, 0.1))))
    return torch.from_numpy((tone * envelope).astype(np.float32))[None]


def length(encoder: AudioEncoder, steps: int) -> int:
    return encoder.context_samples + steps * STEP + encoder.lookahead_samples


def test_a_stream_in_chunks_is_the_whole_recording(encoder: AudioEncoder) -> None:
    samples = voice(length(encoder, 24))
    whole = encoder(samples)
    chunk = length(encoder, 8)
    parts = [encoder(samples[:, start * STEP : start * STEP + chunk]) for start in (0, 8, 16)]
    assert whole.shape == (1, 24, encoder.dim)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-4)


def test_nothing_beyond_the_look_ahead_is_needed(encoder: AudioEncoder) -> None:
    """Sound after a step's look-ahead does not change the step; sound within it does."""
    samples = voice(length(encoder, 8))
    last_needed = encoder.context_samples + 4 * STEP + encoder.lookahead_samples  # of the first four steps
    later, within = samples.clone(), samples.clone()
    later[:, last_needed:] = 0.5
    within[:, last_needed - STEP - 400 : last_needed] = 0.5
    reference = encoder(samples)[:, :4]
    torch.testing.assert_close(encoder(later)[:, :4], reference, rtol=0, atol=1e-5)
    assert not torch.allclose(encoder(within)[:, :4], reference, atol=1e-3)


def test_a_whisper_and_a_shout_look_alike_but_silence_does_not(encoder: AudioEncoder) -> None:
    """The spectrum divided by its loudness; the row after it is the loudness itself."""
    samples = voice(length(encoder, 8))
    shout, whisper, silence = (encoder._spectrum(samples * gain) for gain in (2.0, 0.5, 0.0))
    assert (shout[:, :-2] - whisper[:, :-2]).abs().mean() < 0.1 * shout[:, :-2].std()
    assert (shout[:, :-2] - silence[:, :-2]).abs().mean() > 0.5 * shout[:, :-2].std()


def test_a_breath_after_silence_is_background(encoder: AudioEncoder) -> None:
    """At -63 dBFS, as in a real recording, it is the loudest for seconds, and yet looks like silence."""
    breath = torch.zeros(1, length(encoder, 16))
    start = encoder.context_samples + 4 * STEP
    breath[:, start : start + 2000] = torch.randn(2000, generator=torch.Generator().manual_seed(0)) * 10 ** (-63 / 20)
    speech = breath * 10 ** (40 / 20)
    silent, faint, loud = (encoder._spectrum(sound)[0] for sound in (torch.zeros_like(breath), breath, speech))
    assert (faint - silent).abs().max() < 0.5 * (loud - silent).abs().max()
    assert faint[-1].max() < -1.0 and loud[-1].max() > -0.1


def test_stress_tells_the_loud_moment_from_the_soft_one(encoder: AudioEncoder) -> None:
    """Loud, then 20 dB softer: the same at any gain, but for the floor."""
    samples = torch.randn(1, length(encoder, 16), generator=torch.Generator().manual_seed(0)) * 0.3
    half = encoder.context_samples + 8 * STEP
    samples[:, half:] *= 0.1
    row, softer = encoder._spectrum(samples)[0, -1], encoder._spectrum(samples * 0.3)[0, -1]
    assert row[:20].abs().max() < 0.2
    assert row[-1].item() == pytest.approx(-0.4 * math.log(100), abs=0.3)
    torch.testing.assert_close(row, softer, rtol=0, atol=0.05)


@pytest.mark.parametrize("extra", [-1, 1, 319])
def test_a_length_that_is_no_number_of_steps_is_refused(encoder: AudioEncoder, extra: int) -> None:
    with pytest.raises(ValueError, match="samples must be"):
        encoder(torch.zeros(1, length(encoder, 8) + extra))
    with pytest.raises(ValueError, match="samples must be"):
        encoder(torch.zeros(1, length(encoder, 0)))
