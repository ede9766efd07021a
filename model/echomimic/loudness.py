"""Loudness of speech after ITU-R BS.1770 (one channel, gated), and speech brought to a loudness.

The filters are applied as one finite impulse response by FFT: both have died away to nothing long before its end.
"""

from __future__ import annotations

import math

import numpy as np

TARGET_LUFS = -23.0
BLOCK_S = 0.4
STEP = 0.25  # of a block
ABSOLUTE_GATE, RELATIVE_GATE = -70.0, -10.0
RESPONSE_S = 0.5

Biquad = tuple[np.ndarray, np.ndarray]


def loudness_lufs(samples: np.ndarray, rate_hz: int) -> float:
    """-inf for silence, and for what is shorter than a block."""
    duration = len(samples) / rate_hz
    if duration < BLOCK_S:
        return -math.inf
    power = np.square(_weighted(samples.astype(np.float64), rate_hz))
    num_blocks = int(np.round((duration - BLOCK_S) / (BLOCK_S * STEP))) + 1
    starts = [BLOCK_S * j * STEP for j in range(num_blocks)]
    energy = np.array([power[int(s * rate_hz) : int((s + BLOCK_S) * rate_hz)].sum() / (BLOCK_S * rate_hz) for s in starts])
    loud = energy[energy > 10 ** ((ABSOLUTE_GATE + 0.691) / 10)]
    if not len(loud):
        return -math.inf
    gated = loud[_level(loud) > _level(loud.mean()) + RELATIVE_GATE]
    return float(_level(gated.mean()))


def normalise_loudness(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """To TARGET_LUFS; unchanged where there is no loudness to speak of."""
    loudness = loudness_lufs(samples, rate_hz)
    if abs(loudness) > 100:
        return samples
    return (samples * 10 ** ((TARGET_LUFS - loudness) / 20)).astype(np.float32)


def _level(energy: np.ndarray) -> np.ndarray:
    return -0.691 + 10 * np.log10(energy)


def _weighted(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """Head and hearing: a shelf of 4 dB above 1.5 kHz, a high pass at 38 Hz."""
    length = int(RESPONSE_S * rate_hz)
    response = np.zeros(length)
    response[0] = 1.0
    for biquad in (_high_shelf(rate_hz, 4.0, 1 / math.sqrt(2), 1500.0), _high_pass(rate_hz, 0.5, 38.0)):
        response = _filtered(response, biquad)
    size = 1 << (len(samples) + length).bit_length()
    return np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)[: len(samples)]


def _filtered(x: np.ndarray, biquad: Biquad) -> np.ndarray:
    (b0, b1, b2), (_, a1, a2) = biquad
    y = np.zeros_like(x)
    x1 = x2 = y1 = y2 = 0.0
    for i, value in enumerate(x.tolist()):
        out = b0 * value + b1 * x1 + b2 * x2 - a1 * y1 - a2 * y2
        x1, x2, y1, y2 = value, x1, out, y1
        y[i] = out
    return y


def _high_shelf(rate_hz: int, gain_db: float, q: float, corner_hz: float) -> Biquad:
    a = 10 ** (gain_db / 40)
    omega = 2 * math.pi * corner_hz / rate_hz
    cos, slope = math.cos(omega), 2 * math.sqrt(a) * math.sin(omega) / (2 * q)
    numerator = a * np.array([a + 1 + (a - 1) * cos + slope, -2 * (a - 1 + (a + 1) * cos), a + 1 + (a - 1) * cos - slope])
    denominator = np.array([a + 1 - (a - 1) * cos + slope, 2 * (a - 1 - (a + 1) * cos), a + 1 - (a - 1) * cos - slope])
    return numerator / denominator[0], denominator / denominator[0]


def _high_pass(rate_hz: int, q: float, corner_hz: float) -> Biquad:
    omega = 2 * math.pi * corner_hz / rate_hz
    cos, alpha = math.cos(omega), math.sin(omega) / (2 * q)
    denominator = np.array([1 + alpha, -2 * cos, 1 - alpha])
    return np.array([(1 + cos) / 2, -(1 + cos), (1 + cos) / 2]) / denominator[0], denominator / denominator[0]
