"""Do the lips say what the voice says? Openings of the mouth, one number a frame, against the truth's, the sound's and the phones'.

An opening comes from pictures (`tracker`), whatever made them, so that truth, autoencoder and network are measured alike. Lags are
positive where the picture is late.
"""

from __future__ import annotations

import numpy as np

from model.audio import BILABIALS
from model.geometry import FPS
from model.training.visemes import lips_pressed

MAX_LAG = 10  # frames
CLOSED, OPEN = 0.15, 0.45  # of the 95th percentile of the opening
OPEN_VOWELS = ("AA", "AE", "AO", "AW", "AY")


def filled(opening: np.ndarray) -> np.ndarray:
    """Frames without a face by their neighbours; zeros where there is none at all."""
    found = np.flatnonzero(~np.isnan(opening))
    return np.interp(np.arange(len(opening)), found, opening[found]) if len(found) else np.zeros(len(opening))


def loudness(samples: np.ndarray, rate: int, num_frames: int) -> np.ndarray:
    """RMS of every frame's 40 ms of int16 sound, smoothed over three frames."""
    spacing = rate // FPS
    padded = np.pad(samples.astype(np.float64) / 32768, (0, num_frames * spacing))[: num_frames * spacing]
    return smoothed(np.sqrt((padded.reshape(num_frames, spacing) ** 2).mean(axis=1)))


def smoothed(curve: np.ndarray) -> np.ndarray:
    return np.convolve(curve, np.ones(3) / 3, mode="same")


def correlation_and_lag(opening: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Pearson's r without shift, and the shift in ms of the best one, between frames by a parabola through its neighbours.

    NaN for a curve that does not move.
    """
    if np.ptp(opening) == 0 or np.ptp(other) == 0:
        return float("nan"), float("nan")
    scores = []
    for lag in range(-MAX_LAG, MAX_LAG + 1):
        a, b = opening[max(lag, 0) : len(opening) + min(lag, 0)], other[max(-lag, 0) : len(other) - max(lag, 0)]
        scores.append(float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) and np.ptp(b) else -1.0)
    best = int(np.argmax(scores))
    offset = 0.0
    if 0 < best < 2 * MAX_LAG:
        left, middle, right = scores[best - 1 : best + 2]
        offset = 0.5 * (left - right) / (left - 2 * middle + right)
    return scores[MAX_LAG], (best - MAX_LAG + offset) * 1000 / FPS


def silence_over_loud(opening: np.ndarray, loud: np.ndarray) -> float:
    """Mean opening in silence over that in loud speech; NaN with less than three silent frames."""
    quiet, speech = loud < 0.06 * np.percentile(loud, 95), loud > np.percentile(loud, 70)
    return float(opening[quiet].mean() / opening[speech].mean()) if quiet.sum() >= 3 else float("nan")


def told_closures(mouth: np.ndarray) -> list[tuple[int, int]]:
    """Stretches (first, last + 1) of frames in which a clip's mouth curves [F, num shapes] close the lips for a bilabial."""
    pressed = np.pad(lips_pressed(mouth).astype(int), 1)
    edges = np.flatnonzero(np.diff(pressed))
    return [(int(first), int(stop)) for first, stop in zip(edges[::2], edges[1::2], strict=True)]


def closures_hit(opening: np.ndarray, closures: list[tuple[int, int]]) -> list[bool]:
    """Whether the lips close within one frame of each."""
    limit = CLOSED * np.percentile(opening, 95)
    return [bool(opening[max(first - 1, 0) : stop + 1].min() < limit) for first, stop in closures]


def follows_sound(opening: np.ndarray, loud: np.ndarray) -> dict[str, float]:
    """A recording's figures without any truth: the opening, NaN without a face, against the loudness of the frames."""
    whole = filled(opening)
    correlation, lag_ms = correlation_and_lag(smoothed(whole), loud)
    return {
        "face_found": float(np.mean(~np.isnan(opening))), "correlation": correlation, "lag_ms": lag_ms,
        "silence_over_loud": silence_over_loud(whole, loud), "opening_p95": float(np.percentile(whole, 95)),
    }  # fmt: skip


def articulation(opening: np.ndarray, phones: list[tuple[str, float, float]]) -> dict[str, float]:
    """Share of bilabials whose lips close and of open vowels whose lips open, within a frame of the phone (name, start in s, end in s);
    a share of none is left out."""
    whole = filled(opening)
    scale = np.percentile(whole, 95)

    def around(names: tuple[str, ...]) -> list[np.ndarray]:
        spans = [(int(start * FPS), int(np.ceil(end * FPS))) for name, start, end in phones if name in names]
        return [whole[max(first - 1, 0) : last + 1] / scale for first, last in spans]

    closed = [part.min() < CLOSED for part in around(BILABIALS)]
    opened = [part.max() > OPEN for part in around(OPEN_VOWELS)]
    shares = {"bilabials_closed": closed, "vowels_open": opened}
    return {name: float(np.mean(found)) for name, found in shares.items() if found}
