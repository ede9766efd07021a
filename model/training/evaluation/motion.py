"""Does the head live as the controller tells it? Blinks, and the spectrum of the head's motion.

Few-step samplers lose motion before they lose anything a correlation of lips would show, so it is counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.geometry import FPS

SHUT = 0.6  # of the open eye
# Hz: slow sway and breath; posture and nods; what should be still.
BANDS_HZ = ((0.1, 0.5), (0.5, 1.5), (1.5, 4.0))


@dataclass(frozen=True, slots=True)
class Blinks:
    count: int
    shut_s: float
    watched_s: float

    @property
    def rate_per_min(self) -> float:
        return 60.0 * self.count / self.watched_s

    @property
    def duration_ms(self) -> float:
        return 1000.0 * self.shut_s / self.count if self.count else float("nan")

    def __add__(self, other: Blinks) -> Blinks:
        return Blinks(self.count + other.count, self.shut_s + other.shut_s, self.watched_s + other.watched_s)


def count_blinks(opening: np.ndarray) -> Blinks:
    """Stretches in which the eyes [F] are below SHUT of how open they usually are; where they cross it is found between frames."""
    below = SHUT - opening / np.median(opening)
    shut = np.flatnonzero(np.diff(np.pad((below > 0).astype(int), 1)))
    total = 0.0
    for first, stop in zip(shut[::2], shut[1::2], strict=True):
        # A blink at the edge of the video lasts to the edge.
        before = below[first] / (below[first] - below[first - 1]) if first > 0 else 0.5
        after = below[stop - 1] / (below[stop - 1] - below[stop]) if stop < len(below) else 0.5
        total += (stop - first - 1 + before + after) / FPS
    return Blinks(len(shut) // 2, total, len(opening) / FPS)


def band_power(motion: np.ndarray) -> np.ndarray:
    """Power of each signal [F, S] in each of BANDS_HZ [bands, S]; signals of different length may be added up."""
    centred = (motion - motion.mean(axis=0)) * np.hanning(len(motion))[:, None]
    power = np.abs(np.fft.rfft(centred, axis=0)) ** 2 / len(motion)
    hz = np.fft.rfftfreq(len(motion), 1 / FPS)
    return np.stack([power[(hz >= low) & (hz < high)].sum(axis=0) for low, high in BANDS_HZ])


def spectrum_error(power: np.ndarray, truth: np.ndarray) -> float:
    """By how much the amplitudes in the bands [bands, S] differ from the truth's, as a share of those; each signal counts alike."""
    ours, theirs = np.sqrt(power), np.sqrt(truth)
    return float((np.abs(ours - theirs).sum(axis=0) / theirs.sum(axis=0)).mean())
