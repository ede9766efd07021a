"""The same words by other voices, in a clip's own time: what a transformer hears for the mouths it has seen.

A clip shows one voice, and a transformer that sees five hundred of them learns those voices by heart: bilabials of training voices closed
in 95 % on people it had never seen, those of new voices in 80 %, while the audio encoder, which heard far more, closed them all. So the
words are said again by other voices, phones are matched, and features, not samples, are moved in time: sound stays as natural as it was.
Where voices run words together differently the match is poor; only what the encoder itself reads the clip's mouth from is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

import numpy as np
import torch
from torch import Tensor

from model.audio import STEP, AudioEncoder
from model.geometry import MODEL_RATE
from model.training.augment import augment
from model.training.clips import Clip, utterance_of
from model.training.speech import Phone, say_again
from model.training.visemes import aperture

_TRIES = 10
_AGREEING = 0.8  # correlation of the opening that is heard with the clip's
_AUGMENTED = 0.7
_LOUDNESS_S, _MOST_DB, _FAINT = 0.08, 12.0, 1e-3
_LEAD_S = 1.0  # of sound that a clip stores before its first frame


@torch.inference_mode()
def revoiced(clip: Clip, encoder: AudioEncoder, steps: np.ndarray, most: int) -> list[Tensor]:
    """Features [len(steps), dim] that other voices, `most` or fewer, have where the clip's is at `steps` of 20 ms from its first frame."""
    rng = np.random.default_rng([clip.person_seed, 31])
    utterance, first_s = utterance_of(clip.person_seed, len(clip.frames))
    times = first_s + (steps + 0.5) * STEP / MODEL_RATE
    opening = aperture(clip.mouth)
    shown = (steps >= 0) & (steps < 2 * len(opening))
    versions: list[Tensor] = []
    for _ in range(_TRIES):
        other = say_again(utterance, rng)
        anchors = matched_times(utterance.phones, other.phones)
        sound = _as_loud_as(clip, first_s, other.samples, anchors)
        if rng.random() < _AUGMENTED:
            sound = augment(sound, int(rng.integers(1 << 31)))
        whole = np.pad(sound[: len(sound) // STEP * STEP], (encoder.context_samples, encoder.lookahead_samples))
        heard = encoder(torch.from_numpy(whole)[None])[0]
        at = np.interp(times, anchors[0], anchors[1]) * MODEL_RATE / STEP
        version = heard[at.astype(int).clip(0, len(heard) - 1)]
        read = aperture(encoder.heads(version[shown][None])["mouth"][0].clamp(min=0).numpy())
        if np.ptp(read) and np.corrcoef(read, opening[steps[shown] // 2])[0, 1] > _AGREEING:
            versions.append(version)
        if len(versions) == most:
            break
    return versions


def matched_times(ours: Sequence[Phone], theirs: Sequence[Phone]) -> np.ndarray:
    """Times in s at which two voices say the same, float64 [2, n], rising."""
    matcher = SequenceMatcher(None, [phone[0] for phone in ours], [phone[0] for phone in theirs], autojunk=False)
    pairs = [(0.0, 0.0)]
    for a, b, size in matcher.get_matching_blocks():
        for mine, yours in zip(ours[a : a + size], theirs[b : b + size], strict=True):
            pairs += [(mine[1], yours[1]), (mine[2], yours[2])]
    pairs.append((ours[-1][2], theirs[-1][2]))
    return np.maximum.accumulate(np.array(pairs).T, axis=1)


def _as_loud_as(clip: Clip, first_s: float, samples: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Samples with the loudness that the clip's voice has at the same words: how wide its mouth opens follows from that."""
    own = _loudness(clip.samples.astype(np.float32) / 32768.0)
    theirs = _loudness(samples)
    centre_s = (np.arange(len(theirs)) + 0.5) * _LOUDNESS_S
    in_clip_s = np.interp(centre_s, anchors[1], anchors[0]) - first_s + _LEAD_S
    wanted = np.interp(in_clip_s, (np.arange(len(own)) + 0.5) * _LOUDNESS_S, own)
    gain_db = (20 * np.log10((wanted + _FAINT) / (theirs + _FAINT))).clip(-_MOST_DB, _MOST_DB)
    gain = 10 ** (np.interp(np.arange(len(samples)) / MODEL_RATE, centre_s, gain_db) / 20)
    return (samples * gain).clip(-1, 1).astype(np.float32)


def _loudness(samples: np.ndarray) -> np.ndarray:
    size = int(_LOUDNESS_S * MODEL_RATE)
    return np.sqrt((samples[: len(samples) // size * size].reshape(-1, size) ** 2).mean(axis=1))
