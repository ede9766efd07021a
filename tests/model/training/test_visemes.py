"""Mouth curves from phones: closures are shut, vowels open by their kind, lips lead, silence rests, loudness opens wider."""

from __future__ import annotations

import numpy as np
import pytest

from model.training.visemes import MOUTH_SHAPES, aperture, mouth_curves, stressed


def shape(curves: np.ndarray, name: str) -> np.ndarray:
    return curves[:, MOUTH_SHAPES.index(name)]


def spell(*labels: str, each_s: float = 0.16) -> list[tuple[str, float, float]]:
    return [(label, i * each_s, (i + 1) * each_s) for i, label in enumerate(labels)]


@pytest.mark.parametrize("bilabial", ["B", "P", "M"])
@pytest.mark.parametrize("each_s", [0.05, 0.08, 0.16])
def test_a_bilabial_shuts_the_lips_in_a_frame_however_short_it_is(bilabial: str, each_s: float) -> None:
    curves = mouth_curves(spell("SIL", "AA", bilabial, "AA", "SIL", each_s=each_s), 25)
    opening = aperture(curves)
    start, end = 2 * each_s, 3 * each_s
    centre = round(0.5 * (start + end) * 25 - 0.5)
    assert opening[centre] < 0.05
    assert opening.max() > 0.2  # fast speech undershoots, but it does open


def test_vowels_differ_in_jaw_and_lips() -> None:
    wide, spread, round_ = (mouth_curves(spell("SIL", v, v, "SIL"), 16)[6:10].mean(axis=0) for v in ("AA", "IY", "UW"))
    jaw, pucker, stretch = (MOUTH_SHAPES.index(n) for n in ("jawOpen", "mouthPucker", "mouthStretch_L"))
    assert wide[jaw] > 2 * spread[jaw]
    assert round_[pucker] > 5 * spread[pucker]
    assert spread[stretch] > 5 * round_[stretch]


def test_silence_rests_and_shapes_stay_within_their_range() -> None:
    assert aperture(mouth_curves([("SIL", 0.0, 1.0)], 25)).max() == 0.0
    curves = mouth_curves(spell("SIL", "B", "AA", "S", "UW", "M", "IY", "F", "AO", "SIL"), 40)
    assert curves.dtype == np.float32 and curves.min() >= 0.0 and curves.max() <= 1.0


def test_lips_lead_the_sound() -> None:
    """Before a rounded vowel the lips are already rounding; after it they are back sooner."""
    curves = mouth_curves([("SIL", 0.0, 0.6), ("UW", 0.6, 0.8), ("SIL", 0.8, 1.6)], 40)
    pucker = shape(curves, "mouthPucker")
    before, after = pucker[(np.arange(40) + 0.5) / 25 < 0.6], pucker[(np.arange(40) + 0.5) / 25 > 0.8]
    assert before[-1] > 0.1
    assert before[::-1][:5].sum() > after[:5].sum()


def test_louder_opens_wider() -> None:
    curves = np.full((50, len(MOUTH_SHAPES)), 0.3, dtype=np.float32)
    t = np.arange(32_000) / 16_000
    sound = (np.sin(2 * np.pi * 150 * t) * np.where(t < 1.0, 0.05, 0.3)).astype(np.float32)
    jaw = shape(stressed(curves, sound), "jawOpen")
    assert jaw[30:45].mean() > 1.5 * jaw[5:20].mean()
    assert np.array_equal(shape(stressed(curves, sound), "mouthPress_L"), shape(curves, "mouthPress_L"))


def test_an_unknown_phone_is_an_error() -> None:
    with pytest.raises(KeyError):
        mouth_curves([("QQ", 0.0, 1.0)], 25)
