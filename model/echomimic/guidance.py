"""Guidance of both variants: how predictions are combined, and how scales change over the steps."""

from __future__ import annotations

import math

from torch import Tensor

from model.attention import BranchGains

# Phase-aware allocation as the paper's architecture figure shows it, read off: gain 0.5 at timestep 0, linear up to 1 at these.
PHDA_FLOOR = 0.5
PHDA_IMAGE_FULL = 500.0
PHDA_AUDIO_FULL = 750.0


def dynamic_scale(scale: float, step: int, num_steps: int) -> float:
    """Full at the first step, falling quickly to one half."""
    phase = (1 - math.cos(math.pi * ((num_steps - step) / num_steps) ** 5)) / 2
    return scale / 2 + scale / 2 * phase


def negative_factor(step: int, scale: float, num_steps: int) -> float:
    """Phase-aware negative guidance: the negative text counts more in steps 0..num_steps, then as it is."""
    return scale if step <= num_steps else 1.0


def released_negative_factor(step: int, scale: float, num_steps: int) -> float:
    """The scaled text replaces the text, so the factor grows over steps 0..num_steps and stays: 1.5 becomes 3.375 for good."""
    return scale ** (min(step, num_steps) + 1)


def combine_preview(negative: Tensor, silent: Tensor, full: Tensor, text_scale: float, audio_scale: float) -> Tensor:
    """From (negative text, no sound), (text, no sound) and (text, sound)."""
    return negative + text_scale * (silent - negative) + audio_scale * (full - silent)


def combine_flash(silent: Tensor, full: Tensor, audio_scale: float) -> Tensor:
    return silent + audio_scale * (full - silent)


def phda_gains(timestep: float) -> BranchGains:
    """Branch weights of the paper's figure (approximate); the released code has none."""
    image, audio = (PHDA_FLOOR + (1 - PHDA_FLOOR) * min(1.0, max(0.0, timestep / full)) for full in (PHDA_IMAGE_FULL, PHDA_AUDIO_FULL))
    return BranchGains(1.0, image, audio)
