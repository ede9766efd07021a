"""From raw inputs to what the DiT takes: masks and masked-video latents a task, audio tokens a latent frame, image tokens.

The mask alone picks the task (EchoMimicV3): known frames carry mask 1 and their own latent, unknown ones mask 0 and, in the
embedded preset, the reference latent as a fill. Legend: B batch, T latent frames, C channels, h w latent pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from model.vae import dct_basis

STEPS_PER_LATENT = 8  # audio feature steps (20 ms) of one latent frame (160 ms)
STEPS_BEFORE = 4  # steps of the previous latent frame that belong to this one's tokens


def audio_tokens(features_BSC: Tensor, num_latents: int) -> Tensor:
    """Feature steps to tokens [B, T, STEPS_BEFORE + STEPS_PER_LATENT, C].

    `features` starts STEPS_BEFORE steps before latent frame 0. Look-ahead is inside the features, so no later steps are taken.
    """
    length = STEPS_BEFORE + STEPS_PER_LATENT
    needed = STEPS_BEFORE + num_latents * STEPS_PER_LATENT
    if features_BSC.shape[1] < needed:
        raise ValueError(f"{num_latents} latent frames need {needed} audio steps, got {features_BSC.shape[1]}")
    return features_BSC[:, :needed].unfold(1, length, STEPS_PER_LATENT).transpose(2, 3)


def image_tokens(coarse_BCHW: Tensor) -> Tensor:
    """The reference's coarse features as 4x4 tokens [B, 16, C], row by row."""
    return F.adaptive_avg_pool2d(coarse_BCHW, 4).flatten(2).transpose(1, 2)


# Roughly one over the spread of each component over time. Four nearly equal sets of controls would hide what changes in their differences.
_MOVE_SCALES = (0.5, 5.0, 8.0, 12.0)


def move_basis() -> Tensor:
    """From the moves of a latent frame's video frames to their components [component, frame]: the DCT that latents have, scaled."""
    return dct_basis(len(_MOVE_SCALES)) * torch.tensor(_MOVE_SCALES)[:, None]


def move_tokens(moves_FM: Tensor) -> Tensor:
    """Moves of video frames [..., F, M] as the DiT takes them, a vector a latent frame [..., F/4, 4*M]: mean, slope, ..., of unit size.

    Moves are controls less the portrait's own.
    """
    basis = move_basis().to(moves_FM)
    return torch.einsum("kj,...jm->...km", basis, moves_FM.unflatten(-2, (-1, len(basis)))).flatten(-2)


def masked_video(unknown_CHW: Tensor, known_CHW: Tensor, where_FHW: Tensor, std_C: Tensor) -> Tensor:
    """The masked-video latent [..., C, h, w]: of each of a latent frame's video frames what is known where it is 1 and the fill elsewhere.

    where [..., F, h, w]; std [C], by which latents were divided (`ReferenceVAE.latent_std`).
    """
    basis, std = dct_basis(where_FHW.shape[-3]).to(known_CHW), std_C.to(known_CHW)[:, None, None]
    components = ((known_CHW - unknown_CHW) * std).unflatten(-3, (len(basis), -1))
    change = torch.einsum("kj,...kchw->...jchw", basis, components) * where_FHW[..., None, :, :]
    return unknown_CHW + torch.einsum("kj,...jchw->...kchw", basis, change).flatten(-4, -3) / std
