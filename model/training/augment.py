"""Make a synthesiser's clean voice sound like people, rooms, microphones and networks. Timing is kept to the sample.

Order of a real chain: the speaker (vocal tract, tilt), the room, the noise around, the microphone's gain and clipping, the codec.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import butter, fftconvolve, istft, lfilter, stft

from model.geometry import MODEL_RATE


def augment(samples: np.ndarray, seed: int) -> np.ndarray:
    """float32 [n] at 16 kHz in [-1, 1] to the same length and timing. Deterministic for a seed."""
    rng = np.random.default_rng([seed, 17])
    out = samples.astype(np.float64)
    if rng.random() < 0.7:
        out = _warp_formants(out, rng.uniform(0.82, 1.22))
    if rng.random() < 0.8:
        out = tilt(out, rng)
    if rng.random() < 0.5:
        out = _room(out, rng)
    if rng.random() < 0.75:
        out = _add_noise(out, rng)
    if rng.random() < 0.2:
        out = _band_limit(out, rng)
    peak = float(np.abs(out).max()) or 1.0
    out *= min(1.0, 0.98 / peak) * 10 ** (rng.uniform(-28, 3) / 20)
    if rng.random() < 0.15:
        out = np.clip(out, -0.3, 0.3) / 0.3 * 0.5
    if rng.random() < 0.1:
        out = _drop_packets(out, rng)
    return np.clip(out, -1, 1).astype(np.float32)


def with_dynamics(samples: np.ndarray, seed: int) -> np.ndarray:
    """A synthesiser speaks evenly; people stress words and let phrases fade. float32 [n] at 16 kHz, gains of -16 to +4 dB that
    change several times a second."""
    rng = np.random.default_rng([seed, 23])
    length_s = len(samples) / MODEL_RATE
    times = np.cumsum(rng.uniform(0.12, 0.6, int(length_s / 0.12) + 2))
    spread = rng.uniform(2.0, 7.0)
    gains_db = np.clip(rng.normal(0.0, spread, len(times)), -16.0, 4.0)
    gain = 10 ** (np.interp(np.arange(len(samples)) / MODEL_RATE, times, gains_db) / 20)
    out = samples * gain
    return (out * min(1.0, 0.98 / (np.abs(out).max(initial=0.0) + 1e-9))).astype(np.float32)


def _warp_formants(samples: np.ndarray, factor: float) -> np.ndarray:
    """Another vocal-tract length: the spectral envelope moves by `factor`, pitch and timing stay."""
    _, _, spectrum = stft(samples, nperseg=512, noverlap=384)
    magnitude = np.abs(spectrum) + 1e-9
    logs = np.log(magnitude)
    cepstrum = np.fft.irfft(logs, axis=0)
    lifter = np.zeros(cepstrum.shape[0])
    lifter[:30] = lifter[-29:] = 1.0
    envelope = np.fft.rfft(cepstrum * lifter[:, None], axis=0).real
    source = np.clip(np.arange(len(envelope)) / factor, 0, len(envelope) - 1)
    low = source.astype(int)
    high = np.minimum(low + 1, len(envelope) - 1)
    moved = envelope[low] + (envelope[high] - envelope[low]) * (source - low)[:, None]
    _, out = istft(spectrum * np.exp(np.clip(moved - envelope, -6, 6)), nperseg=512, noverlap=384)
    return np.pad(out, (0, max(len(samples) - len(out), 0)))[: len(samples)]


def tilt(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A microphone's and a mouth's spectral balance: random smooth equaliser of +-9 dB over six bands."""
    spectrum = np.fft.rfft(samples)
    bands = np.interp(np.linspace(0, 5, len(spectrum)) ** 0.9, np.arange(6), rng.uniform(-9, 9, 6))
    return np.fft.irfft(spectrum * 10 ** (bands / 20), len(samples))


def _room(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    length = int(MODEL_RATE * rng.uniform(0.08, 0.45))
    decay = np.exp(-np.arange(length) / (length / 6.0))
    impulse = rng.normal(0, 1, length) * decay * rng.uniform(0.05, 0.35) / np.sqrt(length / 12)
    impulse[0] = 1.0
    return fftconvolve(samples, impulse)[: len(samples)]


def make_noise(length: int, rng: np.random.Generator) -> np.ndarray:
    """Unit-power background: hiss, hum, rumble, clicks, chords or babble-like modulated noise."""
    kind = rng.integers(5)
    white = rng.normal(0, 1, length)
    t = np.arange(length) / MODEL_RATE
    if kind == 0:
        noise = white
    elif kind == 1:
        spectrum = np.fft.rfft(white)
        noise = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 10.0), length)
    elif kind == 2:
        base = rng.uniform(45, 65)
        noise = sum(np.sin(2 * np.pi * base * k * t + rng.uniform(0, 6)) / k for k in range(1, 6)) + 0.1 * white
    elif kind == 3:
        notes = 220 * 2 ** (rng.integers(-12, 13, 4) / 12)
        gate = 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * rng.uniform(0.5, 3) * t))
        noise = sum(np.sin(2 * np.pi * f * t) + 0.3 * np.sin(4 * np.pi * f * t) for f in notes) * gate + 0.02 * white
    else:
        clicks = (rng.random(length) < 4.0 / MODEL_RATE) * rng.normal(0, 1, length)
        noise = lfilter([1.0], [1.0, -1.6, 0.8], clicks) + 0.005 * white
    return noise / (np.sqrt(np.mean(noise**2)) + 1e-9)


def _add_noise(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    power = np.sqrt(np.mean(samples**2)) + 1e-6
    return samples + make_noise(len(samples), rng) * power * 10 ** (-rng.uniform(5, 35) / 20)


def _band_limit(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A telephone line: 300-3400 Hz and mu-law steps."""
    b, a = butter(4, [300 / 8000, 3400 / 8000], btype="band")
    out = lfilter(b, a, samples)
    peak = float(np.abs(out).max()) or 1.0
    companded = np.sign(out) * np.log1p(255 * np.abs(out) / peak) / np.log(256)
    coarse = np.round(companded * 127) / 127
    return np.sign(coarse) * np.expm1(np.abs(coarse) * np.log(256)) / 255 * peak


def _drop_packets(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    out = samples.copy()
    packet = MODEL_RATE // 50
    for start in range(0, len(out) - packet, packet):
        if rng.random() < 0.02:
            out[start : start + packet] = 0.0
    return out
