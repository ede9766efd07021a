"""A bilabial that is heard closes the lips.

P, B and M shut them for one or two video frames. The transformer answers once in four, as a regression: in the middle of two wide vowels it
lowers the jaw's opening to a quarter of it and lets no viewer see lips meet, while the audio encoder is all but sure of what it heard,
and when. So in those frames the lower face goes to what it is in silence, as far as the phone is likely, and all the way from two thirds
on: lips that nearly meet are not seen to.
Legend: B sessions, F video frames of a chunk, c channels a frame, h w latent pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.audio import AudioEncoder
from model.conditions import STEPS_BEFORE

SURE = 1.5  # of the likelihood


def heard_closures(encoder: AudioEncoder, tokens_BLC: Tensor, num_frames: int) -> Tensor:
    """How far lips are closed in each video frame of a latent frame [B, F], 0 to 1, from its audio tokens [B, L, 192]."""
    likely = encoder.bilabials(tokens_BLC[:, STEPS_BEFORE:])
    return (likely.unflatten(1, (num_frames, -1)).amax(dim=2) * SURE).clamp(max=1.0)


def close_lips(frames_BFchw: Tensor, resting_Bchw: Tensor, closures_BF: Tensor, mouth_hw: Tensor) -> Tensor:
    """Latents with the mouth, where `mouth` is 1, led to those of a face at rest."""
    return torch.lerp(frames_BFchw, resting_Bchw[:, None].expand_as(frames_BFchw), closures_BF[..., None, None, None] * mouth_hw)
