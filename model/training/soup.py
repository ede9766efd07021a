"""The soup of tasks: what each lets the transformer know of a sequence, told by masks alone (EchoMimicV3, arXiv 2507.03905, section 3).

Talking and image to video know the reference and nothing of a new frame; text to video not even the reference; lip-sync all of every
frame but the mouth; first and last picture the video frames with which the sequence ends at some chunk. Continuation is in all of them:
every frame sees the ones before it. Legend: K latent frames, F video frames a latent frame, h w latent pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.mouth import mouth_mask

SOUP = {"talk": 0.70, "lipsync": 0.13, "flf2v": 0.11, "t2v": 0.06}  # shares of the sequences


class Mask(NamedTuple):
    """1 where it is known, else 0: of the new video frames [K, F, h, w], and of the reference, a scalar."""

    frames: Tensor
    reference: Tensor


def draw_task(rng: np.random.Generator) -> str:
    return str(rng.choice(list(SOUP), p=list(SOUP.values())))


def mask_of(task: str, shape: tuple[int, int, int, int], rng: np.random.Generator) -> Mask:
    """Of a sequence of `shape` [K, F, h, w]."""
    frames, reference = torch.zeros(shape), torch.tensor(float(task != "t2v"))
    if task == "lipsync":
        frames += 1.0 - mouth_mask(shape[-1])
    elif task == "flf2v":  # the last picture may come with any video frame of a chunk, and is there until the chunk ends
        frames[int(rng.integers(shape[0])), int(rng.integers(shape[1])) :] = 1.0
    return Mask(frames, reference)
