"""Clips of held-out people, voices and sentences: network and autoencoder beside the true render, all seen by the same tracker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from model.geometry import MODEL_RATE
from model.training.clips import Clip
from model.training.evaluation import lips, pictures
from model.training.evaluation.motion import Blinks, band_power, count_blinks, spectrum_error
from model.training.evaluation.pictures import Ratio, decibels, luma, seam, squared_errors, steps
from model.training.evaluation.report import AUTOENCODER, JAW, NETWORK, TRUTH, Figures
from model.training.evaluation.tracker import head_motion, mean_shape, shape_distance, track
from model.training.evaluation.videos import LEAD

SOURCES = (TRUTH, AUTOENCODER, NETWORK)


@dataclass(frozen=True, slots=True)
class Seen:
    """One video of a clip: opening of the lips [F], blinks, power of the head's motion [bands, 5], distance of each face from the
    truth's mean face [frames with a face], steps [F - 1], squared errors by box."""

    opening: np.ndarray
    blinks: Blinks
    power: np.ndarray
    distance: np.ndarray
    steps: np.ndarray
    errors: dict[str, float]


@dataclass(frozen=True, slots=True)
class Judged:
    """A clip: the true mean face [P, 3], loudness [F], bilabials told, and its videos by source."""

    seed: int
    face: np.ndarray
    loud: np.ndarray
    closures: list[tuple[int, int]]
    seen: dict[str, Seen]


def judge(clip: Clip, videos: dict[str, np.ndarray]) -> Judged:
    """`videos` uint8 RGB [F, H, W, 3] of each of SOURCES."""
    tracks = {name: track(frames) for name, frames in videos.items()}
    face = mean_shape(tracks[TRUTH].skull())
    seen = {}
    for name, found in tracks.items():
        skull = found.skull()
        seen[name] = Seen(
            opening=lips.filled(found.lip_opening()), blinks=count_blinks(lips.filled(found.eye_opening())),
            power=band_power(head_motion(skull)), distance=shape_distance(skull, face), steps=steps(luma(videos[name])),
            errors=squared_errors(videos[name], videos[TRUTH]),
        )  # fmt: skip
    loud = lips.loudness(clip.samples[LEAD:], MODEL_RATE, len(clip.frames))
    return Judged(clip.person_seed, face, loud, lips.told_closures(clip.mouth), seen)


def openings(judged: Judged) -> dict[str, np.ndarray]:
    """By what is judged, the jaw that follows loudness alone among them."""
    return {name: seen.opening for name, seen in judged.seen.items()} | {JAW: judged.loud}


def lip_figures(judged: Judged, name: str) -> dict[str, float]:
    """Of one clip; hits and bilabials are counts."""
    opening = openings(judged)[name]
    correlation, lag_ms = lips.correlation_and_lag(opening, judged.seen[TRUTH].opening)
    return {
        "correlation": correlation, "lag_ms": lag_ms, "silence_over_loud": lips.silence_over_loud(opening, judged.loud),
        "hits": sum(lips.closures_hit(opening, judged.closures)), "bilabials": len(judged.closures),
    }  # fmt: skip


def figures(clips: Sequence[Judged], chunk_frames: int) -> tuple[Figures, dict[str, Ratio]]:
    """Over all clips, and the seams with their confidence intervals. Correlations, lags and ratios are means over clips; bilabials,
    blinks, spectra and errors are pooled."""
    result: Figures = {}
    seams = {}
    for name in (*SOURCES, JAW):
        rows = [lip_figures(clip, name) for clip in clips]
        hits, bilabials = (sum(row[key] for row in rows) for key in ("hits", "bilabials"))
        result[name] = {key: _mean([row[key] for row in rows]) for key in ("correlation", "lag_ms", "silence_over_loud")}
        result[name]["closures_hit"] = hits / bilabials if bilabials else float("nan")
    true_blinks, true_power = _blinks(clips, TRUTH), _power(clips, TRUTH)
    for name in SOURCES:
        blinks = _blinks(clips, name)
        seams[name] = seam([clip.seen[name].steps for clip in clips], chunk_frames)
        result[name] |= {
            "blink_rate": blinks.count / true_blinks.count if true_blinks.count else float("nan"),
            "blink_duration": blinks.duration_ms / true_blinks.duration_ms,
            "head_spectrum_error": spectrum_error(_power(clips, name), true_power),
            "identity_error": _identity(clips, name),
            "identity_over_autoencoder": _identity(clips, name) / _identity(clips, AUTOENCODER),
            "seam": seams[name].value,
        } | {box: decibels(_mean([clip.seen[name].errors[box] for clip in clips])) for box in pictures.BOXES}  # fmt: skip
    apart = [shape_distance(one.face[None], other.face)[0] for one, other in combinations(clips, 2)]
    result[TRUTH]["identity_apart"] = _mean(apart)  # of two people: what an identity error is to be seen against
    return result, seams


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _blinks(clips: Sequence[Judged], name: str) -> Blinks:
    first, *rest = (clip.seen[name].blinks for clip in clips)
    return sum(rest, first)


def _power(clips: Sequence[Judged], name: str) -> np.ndarray:
    return np.sum([clip.seen[name].power for clip in clips], axis=0)


def _identity(clips: Sequence[Judged], name: str) -> float:
    """Root mean square over frames, each clip alike."""
    return float(np.sqrt(_mean([(clip.seen[name].distance ** 2).mean() for clip in clips])))
