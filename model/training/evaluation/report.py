"""What must hold, and the table that says whether it does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

Figures = dict[str, dict[str, float]]  # by what is judged, then by figure
NETWORK, AUTOENCODER, TRUTH, JAW = "network", "autoencoder", "truth", "loudness jaw"
COLUMNS = (TRUTH, AUTOENCODER, NETWORK, JAW)
_ANY = math.inf


@dataclass(frozen=True, slots=True)
class Requirement:
    """Ranges (low, high) that a figure of `whose` must lie in, and should."""

    figure: str
    meaning: str
    must: tuple[float, float]
    goal: tuple[float, float]
    whose: str = NETWORK

    def verdict(self, figures: Figures) -> str:
        value = figures.get(self.whose, {}).get(self.figure, math.nan)
        if math.isnan(value):
            return "not measured"
        met = [low <= value <= high for low, high in (self.goal, self.must)]
        return "goal" if met[0] else "must" if met[1] else "MISSED"


REQUIREMENTS = (
    Requirement("correlation", "mouth opening, correlation with the truth's", (0.90, _ANY), (0.95, _ANY)),
    Requirement("closures_hit", "bilabials closed within a frame", (0.90, _ANY), (0.97, _ANY)),
    Requirement("lag_ms", "lag of the lips, ms", (-20, 20), (-10, 10)),
    Requirement("silence_over_loud", "lips in silence over loud speech", (-_ANY, 0.08), (-_ANY, 0.04)),
    Requirement("blink_rate", "blinks, over the truth's", (0.9, 1.1), (0.95, 1.05)),
    Requirement("blink_duration", "duration of blinks, over the truth's", (0.9, 1.1), (0.95, 1.05)),
    Requirement("head_spectrum_error", "spectrum of the head's motion, difference", (-_ANY, 0.10), (-_ANY, 0.05)),
    Requirement("identity_over_autoencoder", "identity error over the autoencoder's", (-_ANY, 1.2), (-_ANY, 1.05)),
    Requirement("seam", "step between chunks over steps inside", (0.95, 1.05), (0.98, 1.02)),
    Requirement("psnr_db", "PSNR of the autoencoder, dB", (34, _ANY), (37, _ANY), AUTOENCODER),
    Requirement("psnr_mouth_db", "PSNR of the autoencoder at the mouth, dB", (30, _ANY), (33, _ANY), AUTOENCODER),
    Requirement("real_face_found", "recordings: face found", (0.99, _ANY), (1.0, _ANY)),
    Requirement("real_correlation", "recordings: opening with loudness", (0.70, _ANY), (0.80, _ANY)),
    Requirement("real_lag_ms", "recordings: lag, ms", (-40, 40), (-20, 20)),
    Requirement("real_bilabials_closed", "recordings: P B M closed", (0.85, _ANY), (0.95, _ANY)),
    Requirement("real_vowels_open", "recordings: open vowels open", (0.85, _ANY), (0.95, _ANY)),
    Requirement("photograph_opening", "photographs: lips open, over presenters'", (0.6, 1.4), (0.8, 1.2)),
    Requirement("photograph_least_opening", "photographs: the least of them", (0.4, _ANY), (0.6, _ANY)),
    Requirement("photograph_correlation", "photographs: opening with the clip's", (0.80, _ANY), (0.90, _ANY)),
    Requirement("drift_sharpness", "long run: sharpness, largest deviation", (-_ANY, 0.05), (-_ANY, 0.02)),
    Requirement("drift_colour", "long run: colour, largest deviation", (-_ANY, 0.05), (-_ANY, 0.02)),
    Requirement("drift_identity", "long run: identity at mean pose, deviation", (-_ANY, 0.05), (-_ANY, 0.02)),
    Requirement("steady", "long run: slopes whose interval holds 0, share", (1, _ANY), (1, _ANY)),
    Requirement("real_time_factor", "computing over playing time", (-_ANY, 0.6), (-_ANY, 0.4)),
)


def table(figures: Figures) -> str:
    """One line a figure: truth, autoencoder, network and naive floor beside each other, then what must hold and whether it does."""
    lines = [f"{'':46}" + "".join(f"{name:>13}" for name in COLUMNS) + f"{'must':>14}  verdict"]
    for row in REQUIREMENTS:
        cells = "".join(f"{_number(figures.get(name, {}).get(row.figure, math.nan)):>13}" for name in COLUMNS)
        lines.append(f"{row.meaning:46}{cells}{_range(row.must):>14}  {row.verdict(figures)}")
    return "\n".join(lines)


def verdicts(figures: Figures) -> dict[str, str]:
    return {row.figure: row.verdict(figures) for row in REQUIREMENTS}


def finite(value: Any) -> Any:
    """The same with None for numbers that JSON does not know."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return "inf" if math.isinf(value) else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def _range(limits: tuple[float, float]) -> str:
    low, high = limits
    if math.isinf(high):
        return f">= {low:g}"
    return f"<= {high:g}" if math.isinf(low) else f"{low:g} .. {high:g}"
