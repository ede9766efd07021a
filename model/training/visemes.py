"""From phones with times to mouth shapes: targets a phone, blended by dominance functions (Cohen and Massaro 1993).

Every phone pulls each shape towards its target with a strength of its own that fades with distance in time: a bilabial insists on
closed lips and on little else, a rounded vowel on the lips' protrusion and less on the jaw, a consonant inside the mouth on
almost nothing. Lips lead the sound (anticipation is longer than carry-over). Closures are then enforced at frame centres, so
that no closure is lost between two frames of 25 fps video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.audio import BILABIALS
from model.geometry import MODEL_RATE

MOUTH_SHAPES = (
    "jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthPress_L", "mouthPress_R", "mouthStretch_L", "mouthStretch_R",
    "mouthSmile_L", "mouthSmile_R", "mouthLowerDown_L", "mouthLowerDown_R", "mouthUpperUp_L", "mouthUpperUp_R",
    "mouthRollLower", "mouthRollUpper",
)  # fmt: skip
# Independent degrees of freedom the table below is written in; left and right follow the same value.
_FREE = ("jaw", "close", "funnel", "pucker", "press", "stretch", "smile", "lower", "upper", "roll_low", "roll_up")
_SHAPE_SOURCE = tuple(
    _FREE.index(name)
    for name in (
        "jaw", "close", "funnel", "pucker", "press", "press", "stretch", "stretch", "smile", "smile", "lower", "lower", "upper", "upper",
        "roll_low", "roll_up",
    )
)  # fmt: skip
_STEP_S = 0.005
_JAW_GAIN = 1.25  # undershoot of blended targets, made up for
_LEAD_S, _LAG_S = 0.065, 0.050  # time constants of anticipation and carry-over


@dataclass(frozen=True, slots=True)
class Target:
    """Values of the free shapes, and how strongly the jaw and the lips insist on them."""

    values: dict[str, float]
    jaw_strength: float
    lip_strength: float


_SILENCE = Target({}, 0.8, 0.8)
_TABLE: dict[str, Target] = {
    "SIL": _SILENCE,
    "AA": Target({"jaw": 0.52, "lower": 0.20, "upper": 0.08}, 1.0, 0.6),
    "AE": Target({"jaw": 0.46, "stretch": 0.25, "lower": 0.30, "upper": 0.15}, 1.0, 0.7),
    "AH": Target({"jaw": 0.30, "lower": 0.15}, 0.8, 0.5),
    "AO": Target({"jaw": 0.42, "funnel": 0.40, "pucker": 0.15}, 1.0, 0.9),
    "AW": Target({"jaw": 0.46, "funnel": 0.25, "lower": 0.10}, 1.0, 0.7),
    "AY": Target({"jaw": 0.45, "stretch": 0.15, "lower": 0.22, "upper": 0.10}, 1.0, 0.6),
    "EH": Target({"jaw": 0.34, "stretch": 0.22, "lower": 0.25, "upper": 0.10}, 0.9, 0.6),
    "ER": Target({"jaw": 0.22, "funnel": 0.28, "pucker": 0.12}, 0.8, 0.7),
    "EY": Target({"jaw": 0.28, "stretch": 0.30, "smile": 0.08, "lower": 0.22}, 0.9, 0.7),
    "IH": Target({"jaw": 0.20, "stretch": 0.25, "lower": 0.20}, 0.8, 0.6),
    "IY": Target({"jaw": 0.14, "stretch": 0.35, "smile": 0.15, "lower": 0.22, "upper": 0.06}, 0.9, 0.8),
    "OW": Target({"jaw": 0.30, "funnel": 0.35, "pucker": 0.45}, 0.9, 1.0),
    "OY": Target({"jaw": 0.34, "funnel": 0.38, "pucker": 0.25}, 0.9, 0.9),
    "UH": Target({"jaw": 0.20, "funnel": 0.35, "pucker": 0.30}, 0.8, 0.9),
    "UW": Target({"jaw": 0.14, "funnel": 0.30, "pucker": 0.65}, 0.9, 1.1),
    "B": Target({"press": 0.30}, 1.6, 2.2), "P": Target({"press": 0.35}, 1.6, 2.2), "M": Target({"press": 0.22}, 1.6, 2.2),
    "F": Target({"jaw": 0.05, "roll_low": 0.55, "upper": 0.18}, 1.3, 1.6),
    "V": Target({"jaw": 0.06, "roll_low": 0.50, "upper": 0.15}, 1.3, 1.5),
    "W": Target({"jaw": 0.08, "funnel": 0.25, "pucker": 0.75}, 0.9, 1.4),
    "R": Target({"jaw": 0.12, "funnel": 0.32, "pucker": 0.25}, 0.6, 0.8),
    "CH": Target({"jaw": 0.10, "funnel": 0.45, "pucker": 0.15, "lower": 0.12, "upper": 0.12}, 0.9, 0.9),
    "JH": Target({"jaw": 0.10, "funnel": 0.42, "pucker": 0.12, "lower": 0.12, "upper": 0.12}, 0.9, 0.9),
    "SH": Target({"jaw": 0.09, "funnel": 0.48, "pucker": 0.15, "lower": 0.12, "upper": 0.14}, 0.9, 1.0),
    "ZH": Target({"jaw": 0.09, "funnel": 0.45, "pucker": 0.15, "lower": 0.12, "upper": 0.14}, 0.9, 1.0),
    "S": Target({"jaw": 0.06, "stretch": 0.22, "lower": 0.24, "upper": 0.08}, 1.0, 0.6),
    "Z": Target({"jaw": 0.06, "stretch": 0.20, "lower": 0.24, "upper": 0.08}, 1.0, 0.6),
    "TH": Target({"jaw": 0.14, "lower": 0.18}, 0.9, 0.5), "DH": Target({"jaw": 0.14, "lower": 0.16}, 0.8, 0.5),
    "T": Target({"jaw": 0.10, "lower": 0.14}, 0.6, 0.3), "D": Target({"jaw": 0.10, "lower": 0.14}, 0.6, 0.3),
    "N": Target({"jaw": 0.12, "lower": 0.12}, 0.5, 0.3), "L": Target({"jaw": 0.18, "lower": 0.15}, 0.6, 0.35),
    "K": Target({"jaw": 0.16}, 0.4, 0.2), "G": Target({"jaw": 0.16}, 0.4, 0.2), "NG": Target({"jaw": 0.15}, 0.4, 0.2),
    "HH": Target({"jaw": 0.20}, 0.25, 0.15), "Y": Target({"jaw": 0.12, "stretch": 0.25, "lower": 0.12}, 0.6, 0.5),
}  # fmt: skip
_OPENING = [MOUTH_SHAPES.index(s) for s in MOUTH_SHAPES if s.startswith(("jawOpen", "mouthLower", "mouthUpper", "mouthFunnel"))]
_STRESS_SAMPLES = 640  # loudness is taken over 80 ms
_PRESSED = 0.25  # how far lips are pressed together in a bilabial, at least


def mouth_curves(phones: Sequence[tuple[str, float, float]], num_frames: int, fps: float = 25.0) -> np.ndarray:
    """ARKit weights float32 [num_frames, len(MOUTH_SHAPES)], frame n at time (n + 0.5) / fps. Unknown labels raise KeyError."""
    length_s = num_frames / fps
    time_s = np.arange(0.0, length_s + 0.1, _STEP_S)
    numerator = np.zeros((len(time_s), len(_FREE)))
    denominator = np.full((len(time_s), len(_FREE)), 1e-3)
    for label, start, end in phones:
        target = _TABLE[label]
        strength = np.full(len(_FREE), target.lip_strength)
        strength[0] = target.jaw_strength
        values = np.array([target.values.get(name, 0.0) for name in _FREE])
        # Fast speech undershoots; the middle of a phone dominates, its neighbours fade in and out exponentially.
        middle, half = 0.5 * (start + end), 0.5 * (end - start)
        first, last = np.searchsorted(time_s, (start - 0.35, end + 0.3))
        t = time_s[first:last] - middle
        outside = np.where(t < 0, np.maximum(-t - half * 0.6, 0.0) / _LEAD_S, np.maximum(t - half * 0.6, 0.0) / _LAG_S)
        dominance = np.exp(-(outside**1.3))[:, None] * strength
        numerator[first:last] += dominance * values
        denominator[first:last] += dominance
    free = numerator / denominator
    frames = np.stack([np.interp((np.arange(num_frames) + 0.5) / fps, time_s, column) for column in free.T], axis=1)
    frames[:, 0] *= _JAW_GAIN
    _enforce_closures(frames, phones, fps)
    return frames[:, _SHAPE_SOURCE].astype(np.float32)


def _enforce_closures(frames: np.ndarray, phones: Sequence[tuple[str, float, float]], fps: float) -> None:
    """Lips shut in every frame whose centre lies inside a bilabial, and in at least one frame a bilabial."""
    column = {name: i for i, name in enumerate(_FREE)}
    shut = [column[name] for name in ("jaw", "lower", "upper", "funnel")]
    for label, start, end in phones:
        if label not in BILABIALS:
            continue
        centre = int(round(0.5 * (start + end) * fps - 0.5))
        inside = [n for n in range(int(start * fps), int(end * fps) + 1) if start <= (n + 0.5) / fps <= end]
        for n in {*inside, centre}:
            if 0 <= n < len(frames):
                frames[n, shut] *= 0.08
                frames[n, column["press"]] = max(frames[n, column["press"]], _PRESSED)


def lips_pressed(mouth: np.ndarray) -> np.ndarray:
    """In which frames mouth curves [F, num shapes] close the lips for a bilabial, bool [F]."""
    return mouth[:, MOUTH_SHAPES.index("mouthPress_L")] >= _PRESSED - 1e-3


def stressed(curves: np.ndarray, samples: np.ndarray, fps: float = 25.0) -> np.ndarray:
    """Curves [N, num shapes] with what opens the mouth scaled by how loud the voice is at that moment (float32 [n], 16 kHz).

    People open wider on stressed syllables and hardly move on the last words of a sentence; phones alone do not say that.
    """
    energy = np.concatenate(([0.0], np.cumsum(samples.astype(np.float64) ** 2)))
    centres = ((np.arange(len(curves)) + 0.5) / fps * MODEL_RATE).astype(int)
    first, last = (np.clip(centres + shift, 0, len(samples)) for shift in (-_STRESS_SAMPLES, _STRESS_SAMPLES))
    loudness = np.sqrt((energy[last] - energy[first]) / np.maximum(last - first, 1))
    voiced = loudness[loudness > 0.05 * loudness.max(initial=0.0)]
    reference = float(np.percentile(voiced, 85)) if len(voiced) else 1.0
    gain = np.minimum(0.3 + 0.8 * (loudness / (reference + 1e-9)) ** 0.7, 1.25)
    out = curves.copy()
    out[:, _OPENING] *= gain[:, None].astype(np.float32)
    return out


def aperture(curves: np.ndarray) -> np.ndarray:
    """One number for how open the lips are, from mouth curves [..., num shapes]: jaw and lip raising less press and roll."""
    value = dict(zip(MOUTH_SHAPES, np.moveaxis(np.asarray(curves), -1, 0), strict=True))
    lips = 0.25 * (value["mouthLowerDown_L"] + value["mouthUpperUp_L"])
    return np.clip(value["jawOpen"] + lips - value["mouthClose"] - 0.3 * value["mouthPress_L"] - 0.2 * value["mouthRollLower"], 0.0, None)
