"""Are the pictures right, seamless and the same after an hour? Frames are uint8 RGB [F, H, W, 3] unless said otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.training.train_vae import EYES_BOX, MOUTH_BOX

BOXES = {"psnr_db": (slice(None), slice(None)), "psnr_mouth_db": MOUTH_BOX, "psnr_eyes_db": EYES_BOX}
NUM_BINS = 12  # a long run is cut into: each long enough to average over motion and speech


def squared_errors(frames: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Mean squared error in each of BOXES, to be averaged over clips of one length."""
    difference = frames.astype(np.float32) - truth
    return {name: float((difference[(slice(None), *box)] ** 2).mean()) for name, box in BOXES.items()}


def decibels(squared_error: float) -> float:
    return float(10.0 * np.log10(255.0**2 / squared_error)) if squared_error else float("inf")


def luma(frames: np.ndarray) -> np.ndarray:
    """BT.601 luma, float32 [F, H, W] in 0..255."""
    return frames @ np.array([0.299, 0.587, 0.114], dtype=np.float32)


def steps(luma_FHW: np.ndarray) -> np.ndarray:
    """Mean absolute change from each frame to the next [F - 1]."""
    return np.abs(np.diff(luma_FHW, axis=0)).mean(axis=(1, 2))


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of means with its 95 % confidence interval."""

    value: float
    low: float
    high: float


def seam(videos: list[np.ndarray], chunk_frames: int) -> Ratio:
    """Steps from one chunk to the next over steps inside the chunk before, over the `steps` of several videos; 1 = no seam shows."""
    boundary, interior = [], []
    for video in videos:
        whole = video[: len(video) // chunk_frames * chunk_frames].reshape(-1, chunk_frames)
        interior.append(whole[:, :-1].mean(axis=1))
        boundary.append(whole[:, -1])
    b, i = np.concatenate(boundary), np.concatenate(interior)
    value = b.mean() / i.mean()
    # Standard error of a ratio of means (delta method).
    error = np.std(b - value * i, ddof=1) / (np.sqrt(len(b)) * i.mean())
    return Ratio(float(value), float(value - 1.96 * error), float(value + 1.96 * error))


def sharpness(luma_HW: np.ndarray) -> float:
    """Variance of the Laplacian (Pech-Pacheco 2000)."""
    y = luma_HW.astype(np.float32)
    laplacian = 4 * y[1:-1, 1:-1] - y[:-2, 1:-1] - y[2:, 1:-1] - y[1:-1, :-2] - y[1:-1, 2:]
    return float(laplacian.var())


def drift(values: np.ndarray) -> dict[str, float]:
    """Straight line through NUM_BINS means of a long run's values [F]: its change over the run with a 95 % confidence interval, and
    the largest distance of a bin from all, as shares of the mean."""
    from scipy.stats import linregress, t

    bins = np.array([np.nanmean(part) for part in np.array_split(values, NUM_BINS)])
    bins /= bins.mean()
    line = linregress(np.arange(NUM_BINS) / (NUM_BINS - 1), bins)
    margin = t.ppf(0.975, NUM_BINS - 2) * line.stderr
    return {
        "change": float(line.slope), "low": float(line.slope - margin), "high": float(line.slope + margin),
        "deviation": float(np.abs(bins - 1.0).max()),
    }  # fmt: skip
